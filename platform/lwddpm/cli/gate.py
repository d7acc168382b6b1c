"""`lwddpm models gate`, `promote`, `log`, `verify-log` and `dossier`: what a version must show, and what was done."""

import getpass
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lwddpm.cli.app import JsonFlag, TrackingOption, finish
from lwddpm.cli.models import RegisteredArgument, models, open_registry
from lwddpm.cli.views import gate as views

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A registered model.")]


@models.command("gate")
def models_gate(
    name: NameArgument,
    policy: Annotated[
        str | None, typer.Argument(help="A policy file, or a shipped policy: research, clinical. Default: show.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it is set or removed; kept in the log.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Promote without a policy from now on.")] = False,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show, set or remove the policy that versions of a model must pass to be promoted.

    lwddpm models gate lw-ddpm research --reason "results are shared with the partner site"
    """

    def verb() -> dict[str, Any]:
        from lwddpm.errors import ConfigError

        if policy is not None and remove:
            raise ConfigError("--remove: takes no policy; leave one of the two out")
        open_registry(tracking_uri)
        from lwddpm.release.policy import load_policy, policy_in_force, policy_sha256, set_policy

        if policy is not None or remove:
            set_policy(name, load_policy(policy) if policy else None, reason, getpass.getuser())
        found = policy_in_force(name)
        if found is None:
            return {"model": name, "policy": None}
        return {"model": name, "policy": found.model_dump(mode="json"), "sha256": policy_sha256(found)}

    finish(verb, as_json, views.policy)


@models.command("promote")
def models_promote(
    model: RegisteredArgument,
    reason: Annotated[str, typer.Option(help="Why; kept in the promotion record.")] = "",
    to: Annotated[str, typer.Option(help="Alias to move.")] = "champion",
    approver: Annotated[str | None, typer.Option(metavar="NAME", help="Who approves, other than the trainer.")] = None,
    override: Annotated[
        bool,
        typer.Option("--override", help="Promote against the policy; needs --reason and --approver, shown for ever."),
    ] = False,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Move the alias `champion` to a version, if the policy of its model lets it; the log says who, when and why.

    Exit code 1 if the gate refuses: each rule is printed, passed, failed or missing.

        lwddpm models promote models:/lw-ddpm@candidate --reason "lower fd_lite0, audit clear" --approver "A. Meyer"
    """

    def verb() -> dict[str, Any]:
        open_registry(tracking_uri)
        from lwddpm.release import alerts, promotion

        result = promotion.promote(model, reason, to, approver=approver, override=override)
        alerts.promoted(result)
        return result

    if not finish(verb, as_json, views.promotion)["promoted"]:
        raise typer.Exit(1)


@models.command("log")
def models_log(name: NameArgument, tracking_uri: TrackingOption = None, as_json: JsonFlag = False) -> None:
    """Show what was done with a model: promotions, gates, overrides, approvals, audits; --json exports JSON lines.

    lwddpm models log lw-ddpm --json > lw-ddpm.log.jsonl
    """

    def verb() -> list[dict[str, Any]]:
        open_registry(tracking_uri)
        from lwddpm.tracking import registry_log

        return registry_log.of_registered(name)

    if not as_json:
        finish(verb, False, views.log)
        return
    finish(verb, False, lambda entries: typer.echo("\n".join(map(_line, entries))) if entries else None)


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, sort_keys=True)


@models.command("verify-log")
def models_verify_log(
    name: NameArgument,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="An exported log: whether the one in the store continues it.")
    ] = None,
    public_keys: Annotated[
        list[str] | None, typer.Option("--public-key", metavar="PEM", help="Of a signer; may be given several times.")
    ] = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Find every entry of a log that was changed, removed or reordered.

    Without FILE the log in the store is checked, with the tags that hold its newest hash. With FILE the exported log is
    checked too, and that the one in the store begins with it: keep an export elsewhere.

    Exit code 1 if anything was found.
    """

    def verb() -> dict[str, Any]:
        open_registry(tracking_uri)
        from lwddpm.release.log_check import check_log

        return check_log(name, None if file is None else Path(file), public_keys or [])

    if not finish(verb, as_json, views.log_check)["whole"]:
        raise typer.Exit(1)


@models.command("dossier")
def models_dossier(
    model: RegisteredArgument,
    output: Annotated[str, typer.Option(metavar="FILE", help="The page: HTML, self-contained.")] = "dossier.html",
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the page for a privacy officer: what was tested, what was not, who approved, until when it counts.

    lwddpm models dossier models:/lw-ddpm@champion --output dossier.html
    """

    def verb() -> dict[str, Any]:
        registry = open_registry(tracking_uri)
        from lwddpm.release.dossier import write_dossier

        return write_dossier(registry.find_version(model), Path(output))

    finish(verb, as_json, views.dossier)
