"""Registering models: what training, and `lwddpm models calibrate`, add to the registry."""

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, Schema, TensorSpec

from lwddpm.config import RegistryConfig
from lwddpm.config.tracking import CHAMPION
from lwddpm.progress import say
from lwddpm.tracking import notes
from lwddpm.tracking.card import with_presets
from lwddpm.tracking.registry import (
    CALIBRATED_FROM,
    PRESETS,
    WEIGHTS,
    RegisteredVersion,
    described,
    find_version,
    promotions,
)
from lwddpm.tracking.registry_log import GATE
from lwddpm.tracking.runs import TrackedRun
from lwddpm.tracking.version_presets import presets_of
from lwddpm.training.stored_files import sha256_of
from lwddpm.training.stored_model import WEIGHTS_FILE, read_saved_model
from lwddpm.training.stored_presets import PRESETS_FILE, read_presets, write_presets

_PACKAGE = Path(__file__).resolve().parents[1]
_REQUIREMENTS = ("torch", "diffusers", "safetensors", "pydantic", "numpy", "pandas")
_INPUTS = {
    **dict.fromkeys(("count", "seed", "steps"), "long"),
    **dict.fromkeys(("guidance", "condition_guidance", "guidance_low", "guidance_high", "truncation"), "double"),
    "preset": "string",
}


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
    return described(client, registered)


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
    return described(client, client.get_model_version(old.name, number))


def _move_alias(client: MlflowClient, name: str, alias: str, number: str) -> None:
    """Give a version that was just registered an alias, but not one that only a promotion through the gate may move."""
    promoted = {record.get("alias") for record in promotions(name)}
    if GATE in client.get_registered_model(name).tags and alias in promoted | {CHAMPION}:
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
