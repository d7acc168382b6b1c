"""The files of a model, from a folder or from the registry."""

import shutil
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from requests import RequestException

from lwddpm.errors import CheckpointError, ConfigError
from lwddpm.files import complete_folder
from lwddpm.tracking.registry import find_version
from lwddpm.tracking.store import local_place, moved
from lwddpm.training.stored_guide import GUIDE_FOLDER
from lwddpm.training.stored_model import WEIGHTS_FILE
from lwddpm.training.stored_presets import PRESETS_FILE


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
