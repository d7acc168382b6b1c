"""`lwddpm dashboard`: the experiment board."""

from typing import Annotated

import typer

from lwddpm.cli.app import TrackingOption, app, finish


@app.command()
def dashboard(
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but a loopback one asks visitors for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8050,
    expose: Annotated[bool, typer.Option("--expose", help="Listen on all interfaces: --host 0.0.0.0.")] = False,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further name under which visitors reach the board.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Optuna storage; default ./optuna.db (SQLite).")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(metavar="FOLDER", help="A prepared dataset that no run has used yet.")
    ] = None,
    tracking_uri: TrackingOption = None,
) -> None:
    """Open the experiment board: runs, searches, registry, samples, datasets and reader studies in the browser.

    It reads MLflow and Optuna and keeps nothing itself. Start it in the folder where jobs run, or name their stores:

        lwddpm dashboard

        lwddpm dashboard --tracking-uri http://HOST:5000 --storage postgresql://USER@HOST/DATABASE

    Exposed, it asks for the token in LWDDPM_BOARD_TOKEN, else for one that it keeps in ~/.lwddpm/board-token. It does
    not encrypt: put a TLS proxy in front.
    """
    from lwddpm_board.server import Settings, serve

    settings = Settings(
        host="0.0.0.0" if expose else host,
        port=port,
        tracking=tracking_uri,
        storage=storage,
        datasets=data or [],
        allowed_hosts=allowed_host or [],
    )
    finish(lambda: serve(settings), False, lambda _: None)  # it has said everything while it ran
