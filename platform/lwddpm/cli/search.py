"""`lwddpm search`: studies."""

from typing import Annotated, Any

import typer

from lwddpm.cli.app import JsonFlag, app, finish
from lwddpm.cli.views import search as views

search = typer.Typer(no_args_is_help=True, help="Look at hyperparameter searches.")
app.add_typer(search, name="search")


@search.command("show")
def search_show(
    name: Annotated[str, typer.Argument(help="The search: `name` of its job file, such as search-demo.")],
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Optuna storage; default ./optuna.db (SQLite).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a study, also while it runs: trials with states and budgets, the best, the Pareto front, importance.

    Only trials at the full budget are ranked: a value from a lower budget says little about the end.

        lwddpm search show search-demo

        optuna-dashboard sqlite:///optuna.db        the same study in Optuna's own viewer
    """

    def verb() -> dict[str, Any]:
        from lwddpm.search.ranking import describe
        from lwddpm.search.storage import check_storage, find_study, storage_url

        url = storage_url(storage)
        check_storage(url)
        return describe(find_study(url, name))

    finish(verb, as_json, views.study)
