"""The program `lwddpm`: its root, the options that verbs share, and how a verb ends."""

import contextlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from lwddpm.cluster.stop import run_program
from lwddpm.errors import ConfigError, LwddpmError

app = typer.Typer(
    name="lwddpm",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong input, 130 stopped by Ctrl-C. Progress goes to stderr.",
)

JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="A job file, or the name of a shipped job such as demo.")
]
OverrideOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key, such as training.lr=1e-4.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, for machines.")]
TrackingOption = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri", metavar="URI", help="MLflow store; default MLFLOW_TRACKING_URI, else ./mlflow.db (SQLite)."
    ),
]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """[bold]LW-DDPM[/bold]: train, evaluate and sample lightweight diffusion models of 2D brain MRI slices.

    A job is one YAML file; the same file runs here and on a Ray cluster. Begin with:

        lwddpm run demo             the whole path on a simulated dataset, in minutes

        lwddpm run search_demo      a hyperparameter search on the same

        lwddpm models list          what has been registered

        lwddpm up                   a Ray head and MLflow on this machine, for lwddpm submit

        lwddpm dashboard            every run, search, model and dataset, in the browser
    """
    if version:
        from lwddpm import __version__

        typer.echo(__version__)


def finish(verb: Callable[[], Any], as_json: bool, view: Callable[[Any], None]) -> Any:
    """Run a verb, print its result for a person or a machine, and turn errors into messages and exit codes.

    Args:
        verb: does the work; returns what `--json` prints.
        view: of `cli.views`, prints the same for a person.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):  # libraries print; stdout is for the result
            result = verb()
    except LwddpmError as error:
        _fail(str(error), error.exit_code, as_json)
    except KeyboardInterrupt:
        _fail("stopped", 130, as_json)
    except Exception as error:  # a defect or a broken machine: the stack trace helps, the exit code still tells
        traceback.print_exc()
        _fail(f"{type(error).__name__}: {error}", 1, as_json)
    if as_json:
        typer.echo(json.dumps(result, indent=2, default=str))
    else:
        view(result)
    return result


def enter(directory: str) -> None:
    """Make a folder the working folder.

    Raises:
        ConfigError: there is no such folder.
    """
    try:
        os.chdir(directory)
    except OSError as error:
        hint = "name a folder that exists"
        if not directory:  # a submitted job, on a node that does not say where its storage is
            hint = "set LWDDPM_STORAGE on the cluster's nodes, or submit with --storage"
        raise ConfigError(f"--directory: {directory or 'nothing given'}: {error.strerror}; {hint}") from None


def _fail(message: str, code: int, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(json.dumps({"error": message, "exit_code": code}))
    for line in message.splitlines():
        typer.echo(f"error: {line}" if code != 130 else line, err=True)
    raise typer.Exit(code)


def main() -> None:
    """Entry point of `lwddpm`."""
    # Compute threads that sleep after a short wait: by default they spin for milliseconds, which makes steps 4 to 8
    # times slower when other programs want the cores, and gains nothing when none do.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TQDM_DISABLE", "1")  # our own bars show progress
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    run_program(app)
