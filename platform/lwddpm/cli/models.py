"""`lwddpm models`: the registry."""

from typing import Annotated, Any

import typer

from lwddpm.cli.app import JsonFlag, OverrideOption, TrackingOption, app, finish
from lwddpm.cli.views import gate
from lwddpm.cli.views import models as views

models = typer.Typer(no_args_is_help=True, help="Browse the model registry, and promote versions.")
app.add_typer(models, name="models")

RegisteredArgument = Annotated[str, typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS or models:/NAME/VERSION.")]


@models.command("list")
def models_list(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List registered versions, newest first, with aliases and metrics."""

    def verb() -> list[dict[str, Any]]:
        registry = open_registry(tracking_uri)
        return [version.as_dict() for version in registry.list_versions(name)]

    finish(verb, as_json, views.versions)


@models.command("show")
def models_show(
    model: RegisteredArgument,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one version: metrics, lineage, gate, promotions, model card."""

    def verb() -> dict[str, Any]:
        registry = open_registry(tracking_uri)
        version = registry.find_version(model)
        from lwddpm.release.confirmations import tally
        from lwddpm.release.promotion import approver_of, verdict_of

        verdict = verdict_of(version, approver_of(version))
        gate = None if verdict is None else verdict.model_dump(mode="json")
        found = {"promotions": registry.promotions(version.name), "gate": gate, "flagged_pairs": tally(version)}
        return version.as_dict() | found

    finish(verb, as_json, gate.version)


@models.command("calibrate")
def models_calibrate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a folder.")
    ],
    overrides: OverrideOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute it again where the model has one.")] = False,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Give a diffusion model that lacks one a prior: samplers then start below the noise levels that need no network.

    Every training ends with this; models of version 0.1.0 lack it. Takes the dataset that the model was trained on,
    with the `data` settings of its training.

        lwddpm models calibrate models:/lw-ddpm@candidate --set data.source=PATH --set data.image_size=32
    """
    from lwddpm.jobfile import override, validate_job

    def verb() -> dict[str, Any]:
        values: dict[str, Any] = {"kind": "evaluate", "name": "calibrate", "model_uri": model}
        values["tracking"] = {"uri": tracking_uri}
        origins = override(values, {}, overrides or [])
        job = validate_job(values, "models calibrate", origins)
        from lwddpm.cluster.session import Session
        from lwddpm.config import EvaluateJob
        from lwddpm.kinds.calibrate import run_calibration
        from lwddpm.kinds.jobs import check_job
        from lwddpm.offline import offline
        from lwddpm.tracking.store import named_hosts

        assert isinstance(job, EvaluateJob)
        with offline(job.offline, named_hosts(job.tracking)), Session(job.workers) as session:
            check_job(job)
            return run_calibration(job, session, fresh=fresh)

    finish(verb, as_json, views.calibration)


def open_registry(uri: str | None) -> Any:
    """The registry module, connected to a reachable store."""
    from lwddpm.config import TrackingConfig
    from lwddpm.tracking.store import check_tracking, connect

    resolved = check_tracking(TrackingConfig(uri=uri))
    from lwddpm.tracking import registry

    connect(resolved)
    return registry
