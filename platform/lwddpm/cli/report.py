"""`lwddpm report`: what comparisons found."""

from typing import Annotated, Any

import typer

from lwddpm.cli.app import JsonFlag, TrackingOption, app, finish
from lwddpm.cli.views import run as views


@app.command()
def report(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A comparison: its folder, its MLflow run id, or the name of its job."),
    ],
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where to draw; default: in place, or ./NAME-report for a run id.")
    ] = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw a comparison's report again, from its logged data: nothing is trained or measured.

    Writes report.html (one file, needs nothing else), report.md and figures for screen and print.

        lwddpm report runs/compare-demo

        lwddpm report compare-demo --out DIR
    """

    def verb() -> dict[str, Any]:
        from lwddpm.kinds.compare.redraw import redraw

        return redraw(run, out, tracking_uri)

    finish(verb, as_json, views.report)
