"""The command line: verbs only. Heavy modules are imported inside the verbs, so that --help is instant."""

import contextlib
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from lwddpm.errors import LwddpmError

app = typer.Typer(
    name="lwddpm",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong input, 130 stopped by Ctrl-C. Progress goes to stderr.",
)
models = typer.Typer(no_args_is_help=True, help="Browse the model registry, and promote versions.")
app.add_typer(models, name="models")
search = typer.Typer(no_args_is_help=True, help="Look at hyperparameter searches.")
app.add_typer(search, name="search")

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a folder.")
]
RegisteredArgument = Annotated[str, typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS or models:/NAME/VERSION.")]
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

        mlflow ui                   every run, in the browser
    """
    if version:
        from lwddpm import __version__

        typer.echo(__version__)


@app.command()
def run(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job file, or the name of a shipped job such as demo.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key, such as training.lr=1e-4.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of continuing or reusing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Validate, show config and needs; start nothing.")] = False,
    address: Annotated[
        str | None, typer.Option("--address", metavar="ADDR", help="Ray cluster; default RAY_ADDRESS, else embedded.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a job: prepare, train, search, evaluate or sample, as its `kind` says.

    The same command continues an interrupted job from its last checkpoint, and does nothing when the job is done.
    Ctrl-C saves a checkpoint first.

        lwddpm run jobs/demo.yaml

        lwddpm run jobs/kaggle_small.yaml --set data.source=PATH

        lwddpm run jobs/paper.yaml --set data.source=PATH --dry-run
    """
    from lwddpm.jobfile import load_job
    from lwddpm.training.allocator import tune_allocator

    tune_allocator()

    def verb() -> dict[str, Any]:
        loaded = load_job(job, overrides or [])
        if dry_run:
            from lwddpm.cluster.dry_run import plan

            return plan(loaded, address)
        from lwddpm.cluster.jobs import run_job

        return run_job(loaded, fresh=fresh, address=address)

    _finish(verb, as_json, "plan" if dry_run else "summary")


@app.command()
def sample(
    model: ModelArgument,
    count: Annotated[int, typer.Option(help="Number of slices.")] = 64,
    sampler: Annotated[str, typer.Option(help="ddpm, ddim, dpmsolver++ or sde-dpmsolver++.")] = "ddim",
    steps: Annotated[int, typer.Option(help="Denoising steps; more is slower and, up to a point, better.")] = 50,
    eta: Annotated[float, typer.Option(help="DDIM only: 0 deterministic, 1 as noisy as DDPM.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Image i depends on the seed and i alone.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Slices denoised at a time.")] = 64,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Folder for the PNGs, grid.png and samples.json.")
    ] = "samples",
    workers: Annotated[int, typer.Option(help="Processes that share the work.")] = 1,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw synthetic slices from a registered or saved model.

    lwddpm sample models:/lw-ddpm@candidate --count 64 --sampler ddim --steps 50 --seed 0 --out DIR
    """
    from lwddpm.jobfile import validate_job

    def verb() -> dict[str, Any]:
        sampling = {
            "sampler": sampler,
            "num_inference_steps": steps,
            "eta": eta,
            "batch_size": batch_size,
            "seed": seed,
        }
        job = {
            "kind": "sample",
            "name": "sample",
            "model_uri": model,
            "count": count,
            "out": out,
            "sampling": sampling,
            "workers": {"count": workers},
            "tracking": {"uri": tracking_uri},
        }
        from lwddpm.cluster.jobs import run_job

        return run_job(validate_job(job, "sample"))

    _finish(verb, as_json, "summary")


@models.command("list")
def models_list(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List registered versions, newest first, with aliases and metrics."""

    def verb() -> list[dict[str, Any]]:
        registry = _registry(tracking_uri)
        return [version.as_dict() for version in registry.list_versions(name)]

    _finish(verb, as_json, "versions")


@models.command("show")
def models_show(
    model: RegisteredArgument,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one version: metrics, lineage, promotions, model card."""

    def verb() -> dict[str, Any]:
        registry = _registry(tracking_uri)
        version = registry.find_version(model)
        return version.as_dict() | {"promotions": registry.promotions(version.name)}

    _finish(verb, as_json, "version")


@models.command("promote")
def models_promote(
    model: RegisteredArgument,
    reason: Annotated[str, typer.Option(help="Why; kept in the promotion record.")] = "",
    to: Annotated[str, typer.Option(help="Alias to move.")] = "champion",
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Move the alias `champion` to a version; records who, when, from, to and the metrics."""

    def verb() -> dict[str, Any]:
        record: dict[str, Any] = _registry(tracking_uri).promote(model, reason, to)
        return record

    _finish(verb, as_json, "promotion")


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
        from lwddpm.search.study import check_storage, describe, find_study, storage_url

        url = storage_url(storage)
        check_storage(url)
        return describe(find_study(url, name))

    _finish(verb, as_json, "study")


@app.command()
def doctor(
    address: Annotated[str | None, typer.Option("--address", metavar="ADDR", help="Ray cluster to check.")] = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Check what works here: Ray, MLflow, GPU, memory, metric weights; says what to do about what does not.

    Exit code 1 if anything that every job needs is broken.
    """

    def verb() -> dict[str, Any]:
        from lwddpm.cluster.doctor import examine

        return examine(address, tracking_uri)

    if not _finish(verb, as_json, "checkup")["healthy"]:
        raise typer.Exit(1)


def _registry(uri: str | None) -> Any:
    """The registry module, connected to a reachable store."""
    from lwddpm.config import TrackingConfig
    from lwddpm.tracking.store import check_tracking, connect

    resolved = check_tracking(TrackingConfig(uri=uri))
    from lwddpm.tracking import registry

    connect(resolved)
    return registry


def _finish(verb: Callable[[], Any], as_json: bool, view: str) -> Any:
    """Run a verb, print its result for a person or a machine, and turn errors into messages and exit codes."""
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
        from lwddpm import views

        getattr(views, view)(result)
    return result


def _fail(message: str, code: int, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(json.dumps({"error": message, "exit_code": code}))
    for line in message.splitlines():
        typer.echo(f"error: {line}" if code != 130 else line, err=True)
    raise typer.Exit(code)


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of `lwddpm`."""
    signal.signal(signal.SIGTERM, _interrupt)  # a cluster's stop request ends as Ctrl-C does
    # Compute threads that sleep after a short wait: by default they spin for milliseconds, which makes steps 4 to 8
    # times slower when other programs want the cores, and gains nothing when none do.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("TQDM_DISABLE", "1")  # our own bars show progress
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        app()
    except SystemExit as end:
        # A training thread that is not waited for (a second Ctrl-C) must not meet the interpreter's teardown.
        train = sys.modules.get("lwddpm.cluster.train")
        if train is not None and train.training_goes_on():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        raise
