"""The versions in the model registry: list, look up, promote. All state lives in MLflow."""

import getpass
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lwddpm.config.tracking import CHAMPION
from lwddpm.errors import ConfigError

NUM_SLICES = "lwddpm.n"  # tag of a version: metric -> how many slices it was measured on, as JSON
_PROMOTION = "lwddpm.promotion."
WEIGHTS = "lwddpm.weights_sha256"  # tag of a version: of its model.safetensors, by which its images are known
PRESETS = "lwddpm.presets"  # tag of a version: its presets.json, and what it has got since
WITHDRAWN = "lwddpm.withdrawn"  # tag of a version: how many withdrawn subjects or files its dataset holds, as JSON
CALIBRATED_FROM = "lwddpm.calibrated_from"  # tag of a version: number of the one that had no prior
_ALIAS = re.compile(r"[\w-]{1,255}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._ -]+")  # quotes would end the string in MLflow's query


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of one model, as people ask for it.

    Attributes:
        n: slices that each metric was measured on; empty for versions of 0.1.0.
        presets: named ways to draw, as in `presets.json`.
        withdrawn: how many subjects or files of its dataset have been withdrawn, as `lwddpm lineage --withdrawn` found.
    """

    name: str
    version: int
    aliases: list[str]
    run_id: str
    created: str
    metrics: dict[str, float]
    n: dict[str, int]
    tags: dict[str, str]
    card: str
    presets: dict[str, Any] = field(default_factory=dict)
    withdrawn: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def list_versions(name: str | None = None) -> list[RegisteredVersion]:
    """All versions of one model or of all, newest first.

    Raises:
        ConfigError: no model of that name.
    """
    client = MlflowClient()
    if name and not _NAME.fullmatch(name):
        raise ConfigError(f"{name}: no such registered model; {_known(client)}")
    query = f"name='{name}'" if name else None
    versions = client.search_model_versions(query, order_by=["creation_timestamp DESC"])
    if name and not versions:
        raise ConfigError(f"{name}: no such registered model; {_known(client)}")
    # a search does not return aliases, so each version is read by itself
    return [described(client, client.get_model_version(each.name, each.version)) for each in versions]


def find_version(uri: str) -> RegisteredVersion:
    """Look up `models:/NAME@ALIAS` or `models:/NAME/VERSION`; the `models:/` may be left out.

    Raises:
        ConfigError: not of that form, or not in the registry; lists what is.
    """
    client = MlflowClient()
    reference = uri.removeprefix("models:/")
    try:
        if "@" in reference:
            return described(client, client.get_model_version_by_alias(*reference.split("@", 1)))
        if "/" in reference:
            return described(client, client.get_model_version(*reference.split("/", 1)))
    except MlflowException:
        raise ConfigError(f"{uri}: no such model; {_known(client)}") from None
    raise ConfigError(f"{uri}: must be models:/NAME@ALIAS or models:/NAME/VERSION; {_known(client)}")


def versions_of_weights(weights_sha256: str, named: str) -> Iterator[str]:
    """URIs of the versions that may have some weights, the one that is named first.

    Versions of 0.1.0 do not say which weights they have: they come last, and the caller looks.

    Args:
        weights_sha256: of `model.safetensors`.
        named: where they are said to be, `models:/NAME/VERSION`, whether there is such a version or not.
    """
    client = MlflowClient()
    found = list(client.search_model_versions(f"tags.`{WEIGHTS}` = '{weights_sha256}'"))
    found += [stored for stored in client.search_model_versions() if WEIGHTS not in stored.tags]
    uris = [f"models:/{stored.name}/{stored.version}" for stored in found]
    yield from sorted(uris, key=lambda uri: uri != named)


def add_to_card(version: RegisteredVersion, paragraph: str) -> None:
    """Put a paragraph at the end of a version's card."""
    card = f"{version.card.rstrip()}\n\n{paragraph}\n".lstrip()
    MlflowClient().update_model_version(version.name, str(version.version), description=card)


def check_alias(alias: str) -> None:
    """Refuse what MLflow does not take as an alias, before anything is written down.

    Raises:
        ConfigError: says what an alias is.
    """
    if not _ALIAS.fullmatch(alias) or alias.casefold() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise ConfigError(f"--to {alias}: not a usable alias; use lower-case letters, such as champion")


def promote(
    uri: str,
    reason: str,
    to: str = CHAMPION,
    by: str | None = None,
    *,
    approver: str | None = None,
    override: bool = False,
) -> dict[str, Any]:
    """Move an alias to a version, and record who, when, from, to, why and the metrics; `release.promotion` asks the
    gate first.

    The records are tags of the registered model, one a promotion, never overwritten.

    Args:
        uri: of the version.
        reason: why.
        to: the alias.
        by: who; default: the user of this process.
        approver: who approved, if somebody did.
        override: whether it was against the policy.

    Returns:
        The record.
    """
    client = MlflowClient()
    target = find_version(uri)
    try:
        previous: int | None = int(client.get_model_version_by_alias(target.name, to).version)
    except MlflowException:
        previous = None
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    record = {
        "model": target.name,
        "alias": to,
        "from": previous,
        "to": target.version,
        "by": by or getpass.getuser(),
        "at": now,
        "reason": reason,
        "metrics": target.metrics,
        **({"approver": approver} if approver else {}),
        **({"override": True} if override else {}),
    }
    try:
        client.set_registered_model_alias(target.name, to, str(target.version))
    except MlflowException as error:
        raise ConfigError(
            f"--to {to}: not a usable alias ({error}); use lower-case letters, such as champion"
        ) from None
    client.set_registered_model_tag(target.name, f"{_PROMOTION}{now}", json.dumps(record))
    return record


def promotions(name: str) -> list[dict[str, Any]]:
    """Every recorded promotion of a model, oldest first."""
    tags = MlflowClient().get_registered_model(name).tags
    return [json.loads(tags[key]) for key in sorted(tags) if key.startswith(_PROMOTION)]


def described(client: MlflowClient, stored: ModelVersion) -> RegisteredVersion:
    """What MLflow has stored of a version, its aliases included, in the platform's terms."""
    metrics = {key: float(value) for key, value in stored.tags.items() if key.startswith("eval/")}
    return RegisteredVersion(
        name=stored.name,
        version=int(stored.version),
        aliases=sorted(stored.aliases),
        run_id=stored.run_id or "",
        created=datetime.fromtimestamp(stored.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        metrics=metrics,
        n=json.loads(stored.tags.get(NUM_SLICES, "{}")),
        tags={key: value for key, value in stored.tags.items() if key not in (*metrics, NUM_SLICES, PRESETS)},
        card=stored.description or "",
        presets=json.loads(stored.tags.get(PRESETS, "{}")).get("presets", {}),
        withdrawn=withdrawn_in(stored.tags),
    )


def withdrawn_in(tags: dict[str, str]) -> int:
    """How many withdrawn subjects or files the dataset of a version holds, by its tags; 0 where none is known."""
    try:
        return int(json.loads(tags.get(WITHDRAWN, "{}")).get("entries", 0))
    except (ValueError, TypeError, AttributeError):
        return 1  # a mark that somebody has edited is one all the same


def _known(client: MlflowClient) -> str:
    known = [
        f"models:/{model.name}@{alias}"
        for model in client.search_registered_models()
        for alias in sorted(model.aliases)
    ]
    return f"known: {', '.join(known)}" if known else "the registry is empty: train a model first, lwddpm run demo"
