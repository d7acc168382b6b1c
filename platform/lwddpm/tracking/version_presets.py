"""The named ways to draw of a registered version: in its tag, in its card, and among its files."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from mlflow.tracking import MlflowClient
from pydantic import ValidationError

from lwddpm.errors import CheckpointError
from lwddpm.tracking.card import with_presets
from lwddpm.tracking.model_files import fetch_model
from lwddpm.tracking.registry import PRESETS, RegisteredVersion, described, find_version
from lwddpm.training.stored_presets import PRESETS_FILE, Preset, Presets, read_presets, write_presets


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
        known = read_presets(fetch_model(f"models:/{version.name}/{version.version}"))
    presets, number = known.with_presets(added), str(version.version)
    stored = client.get_model_version(version.name, number)
    logged = (stored.source or "").removeprefix("models:/")  # the files are a logged model's; 0.1.0 had folders of runs
    if f"models:/{logged}" == stored.source:
        with tempfile.TemporaryDirectory() as scratch:
            write_presets(Path(scratch), presets)
            client.log_model_artifact(logged, f"{scratch}/{PRESETS_FILE}", "artifacts/model")
    client.set_model_version_tag(version.name, number, PRESETS, presets.model_dump_json())
    client.update_model_version(version.name, number, description=with_presets(version.card, presets))
    return described(client, client.get_model_version(version.name, number))
