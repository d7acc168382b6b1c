"""The model registry: register, list, show, promote, fetch. All state lives in MLflow."""

import getpass
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, Schema, TensorSpec
from pydantic import ValidationError
from requests import RequestException

from lwddpm.config import RegistryConfig
from lwddpm.config.job import CHAMPION
from lwddpm.errors import CheckpointError, ConfigError
from lwddpm.files import complete_folder
from lwddpm.progress import say
from lwddpm.tracking import notes
from lwddpm.tracking.card import with_presets
from lwddpm.tracking.registry_log import GATE
from lwddpm.tracking.runs import TrackedRun
from lwddpm.tracking.store import local_place, moved
from lwddpm.training.checkpoint import WEIGHTS_FILE, read_saved_model
from lwddpm.training.stored_files import sha256_of
from lwddpm.training.stored_guide import GUIDE_FOLDER
from lwddpm.training.stored_presets import PRESETS_FILE, Preset, Presets, read_presets, write_presets

NUM_SLICES = "lwddpm.n"  # tag of a version: metric -> how many slices it was measured on, as JSON
_PACKAGE = Path(__file__).resolve().parents[1]
_REQUIREMENTS = ("torch", "diffusers", "safetensors", "pydantic", "numpy", "pandas")
_INPUTS = {
    **dict.fromkeys(("count", "seed", "steps"), "long"),
    **dict.fromkeys(("guidance", "guidance_low", "guidance_high", "truncation"), "double"),
    "preset": "string",
}
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


def register(
    run: TrackedRun,
    model_dir: Path,
    registry: RegistryConfig,
    tags: dict[str, str],
    metrics: dict[str, float],
    step: int,
    card: str,
) -> RegisteredVersion:
    """Store a model folder with its run, register it and give it the alias.

    Called again with the same run and tags, after a crash in between, it completes the version it made before.

    Args:
        run: the open run that trained the model; receives the metrics too.
        model_dir: folder with `model.safetensors` and `config.json`.
        registry: name and alias.
        tags: facts to search by, such as the dataset version.
        metrics: `eval/...` numbers of the model.
        step: the optimizer step of the model.
        card: the model card, Markdown.
    """
    client = MlflowClient()
    tags = tags | {name: f"{value:.6g}" for name, value in metrics.items()}
    number = _unfinished(client, registry.name, run.run_id, tags) or _new_version(model_dir, registry.name, tags)
    client.update_model_version(registry.name, number, description=card)
    _move_alias(client, registry.name, registry.alias, number)
    if not client.get_registered_model(registry.name).description:
        client.update_registered_model(registry.name, notes.MODEL)
    registered = client.get_model_version(registry.name, number)
    run.values(metrics, step, registered.model_id)
    return _describe(client, registered)


def register_calibrated(uri: str, model_dir: Path) -> RegisteredVersion:
    """Register a version again with the prior that it lacked: a version never changes.

    The new one belongs to the same run, has the facts of the old one and the alias that `uri` names, but none of its
    metrics: they were measured on slices that were drawn otherwise.

    Args:
        uri: of the old version.
        model_dir: its files, and the prior.
    """
    client = MlflowClient()
    old = find_version(uri)
    presets = (presets_of(uri) or read_presets(model_dir)).unmeasured()
    if presets.presets:
        write_presets(model_dir, presets)
    with mlflow.start_run(run_id=old.run_id or None):
        number = _new_version(model_dir, old.name, old.tags | {CALIBRATED_FROM: str(old.version)})
    remark = f"Version {old.version} with a prior to start from (`lwddpm models calibrate`); not evaluated since."
    card = with_presets(old.card, presets)
    client.update_model_version(old.name, number, description=f"{card}\n\n{remark}\n")
    alias = uri.partition("@")[2]
    if alias:
        _move_alias(client, old.name, alias, number)
    return _describe(client, client.get_model_version(old.name, number))


def presets_of(uri: str) -> Presets | None:
    """The presets of a registered version; None for one of an earlier version of the platform, which has no such tag.

    Raises:
        ConfigError: no such version.
        CheckpointError: they are not what this version understands.
    """
    version = find_version(uri)
    text = MlflowClient().get_model_version(version.name, str(version.version)).tags.get(PRESETS)
    try:
        return None if text is None else Presets.model_validate_json(text)
    except ValidationError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{uri}: its tag {PRESETS} cannot be read: {reason}") from None


def add_presets(uri: str, added: Mapping[str, Preset]) -> RegisteredVersion:
    """Give a registered version presets, in place of those of the same names; its weights and metrics stay.

    They stand in its tag, in its card, and in `presets.json` among its files, for whoever serves it from now on.

    Raises:
        ConfigError: no such version.
        CheckpointError: it has presets that this version does not understand.
    """
    client, version = MlflowClient(), find_version(uri)
    known = presets_of(uri)
    if known is None:
        known = read_presets(_download(f"models:/{version.name}/{version.version}"))
    presets, number = known.with_presets(added), str(version.version)
    stored = client.get_model_version(version.name, number)
    logged = (stored.source or "").removeprefix("models:/")  # the files are a logged model's; 0.1.0 had folders of runs
    if f"models:/{logged}" == stored.source:
        with tempfile.TemporaryDirectory() as scratch:
            write_presets(Path(scratch), presets)
            client.log_model_artifact(logged, f"{scratch}/{PRESETS_FILE}", "artifacts/model")
    client.set_model_version_tag(version.name, number, PRESETS, presets.model_dump_json())
    client.update_model_version(version.name, number, description=with_presets(version.card, presets))
    return _describe(client, client.get_model_version(version.name, number))


def _move_alias(client: MlflowClient, name: str, alias: str, number: str) -> None:
    """Give a version that was just registered an alias, but not one that only a promotion through the gate may move."""
    model = client.get_registered_model(name)
    promoted = {json.loads(value).get("alias") for key, value in model.tags.items() if key.startswith(_PROMOTION)}
    if GATE in model.tags and alias in promoted | {CHAMPION}:
        say(f"{name}: {alias} stays where it is, its model has a policy: lwddpm models promote models:/{name}/{number}")
    else:
        client.set_registered_model_alias(name, alias, number)


def _unfinished(client: MlflowClient, name: str, run_id: str, tags: dict[str, str]) -> str | None:
    """The version that an earlier attempt at the same registration made, if one did."""
    versions = client.search_model_versions(f"name='{name}' and run_id='{run_id}'")
    return next((str(made.version) for made in versions if tags.items() <= made.tags.items()), None)


def _new_version(model_dir: Path, name: str, tags: dict[str, str]) -> str:
    """Log the model to the open run and register it; a version has its tags from its first moment."""
    conditions = read_saved_model(model_dir).conditions
    inputs = _INPUTS | dict.fromkeys(conditions.names if conditions is not None else (), "string")
    with tempfile.TemporaryDirectory() as scratch:
        if model_dir.name != "model":  # a snapshot: MLflow stores a folder by its name, and this one is fetched
            shutil.copytree(model_dir, Path(scratch) / "model")
            model_dir = Path(scratch) / "model"
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"model": str(model_dir)},
            code_paths=[str(_PACKAGE)],
            signature=ModelSignature(
                inputs=Schema([ColSpec(kind, field, required=False) for field, kind in inputs.items()]),
                outputs=Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1))]),
            ),
            pip_requirements=[f"{package}=={version(package)}" for package in _REQUIREMENTS],
        )
        tags = tags | {WEIGHTS: sha256_of(model_dir / WEIGHTS_FILE)}
        if (model_dir / PRESETS_FILE).exists():
            tags |= {PRESETS: read_presets(model_dir).model_dump_json()}
    return str(mlflow.register_model(logged.model_uri, name, tags=tags).version)


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
    return [_describe(client, client.get_model_version(each.name, each.version)) for each in versions]


def find_version(uri: str) -> RegisteredVersion:
    """Look up `models:/NAME@ALIAS` or `models:/NAME/VERSION`; the `models:/` may be left out.

    Raises:
        ConfigError: not of that form, or not in the registry; lists what is.
    """
    client = MlflowClient()
    reference = uri.removeprefix("models:/")
    try:
        if "@" in reference:
            return _describe(client, client.get_model_version_by_alias(*reference.split("@", 1)))
        if "/" in reference:
            return _describe(client, client.get_model_version(*reference.split("/", 1)))
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


def fetch_model(uri: str, into: Path | None = None) -> Path:
    """A folder with `model.safetensors` and `config.json`, from a folder or a `models:/` URI.

    Args:
        uri: as `model_uri` in a job.
        into: where to keep downloaded versions, such as storage that all workers see; default: a temporary folder.

    Raises:
        ConfigError: neither a model folder nor a model that the registry knows.
        CheckpointError: what the registry hands out is not a model of this platform, or lies outside its folder.
    """
    if not uri.startswith("models:/"):
        folder = Path(uri)
        if (folder / "config.json").is_file():
            return folder
        raise ConfigError(f"{uri}: must be models:/NAME@ALIAS, models:/NAME/VERSION or a folder with a saved model")
    registered = find_version(uri)
    reference = f"models:/{registered.name}/{registered.version}"
    if into is None:
        return _download(reference)
    kept = into.absolute() / f"{registered.name}-{registered.version}-{registered.run_id}"  # a version never changes
    if not kept.exists():
        downloaded = _download(reference)
        with complete_folder(kept) as folder:
            shutil.copytree(downloaded, folder, dirs_exist_ok=True)
    return kept


def _download(reference: str) -> Path:
    """Only the weights and their config, not the code that is stored for serving."""
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{reference}/artifacts/model"))
    except (MlflowException, RequestException, OSError) as error:
        reason = _gone(reference) or " ".join(str(error).split())
        raise CheckpointError(f"{reference}: its files cannot be fetched ({reason})") from None
    guide = [f"{GUIDE_FOLDER}/{file}" for file in ("config.json", WEIGHTS_FILE)]
    for file in ("config.json", WEIGHTS_FILE, "prior.safetensors", PRESETS_FILE, *guide):
        if not (folder / file).resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(f"{reference}: {file} lies outside the model's folder; it is not read")
    return folder


def _gone(reference: str) -> str:
    """Why the files of a version are not where MLflow says, where that is a folder of this machine; else nothing."""
    name, version = reference.removeprefix("models:/").rsplit("/", 1)
    try:
        place = local_place(MlflowClient().get_model_version_download_uri(name, version))
    except MlflowException:
        return ""
    if place is None or place.exists():
        return ""
    return f"they were in {place}, where nothing is; {moved(place, None)}, unless somebody has deleted them"


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


def _describe(client: MlflowClient, stored: ModelVersion) -> RegisteredVersion:
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
