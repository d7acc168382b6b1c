from collections.abc import Callable
from pathlib import Path

import pytest

from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.tracking import model_files, registry
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm.tracking.store import connect
from lwddpm.training.stored_model import load_model, read_saved_model

from .conftest import METRICS

Register = Callable[[str], RegisteredVersion]


def test_registered_found_listed_and_fetched(
    registered: Register, store: str, model_dir: Path, tiny_dataset: Dataset
) -> None:
    made = registered("found")
    assert (made.version, made.aliases, made.metrics) == (1, ["candidate"], METRICS)
    assert made.tags["lwddpm.dataset_version"] == tiny_dataset.version
    assert "Not for diagnosis" in made.card
    assert "simulated" in made.card
    assert registry.find_version("models:/found@candidate") == made == registry.find_version("found/1")
    second = registered("found")
    assert registry.find_version("models:/found@candidate") == second
    assert [(v.version, v.aliases) for v in registry.list_versions("found")] == [(2, ["candidate"]), (1, [])]
    folder = Path(store.removeprefix("sqlite:///")).parent / "kept"
    kept = model_files.fetch_model("models:/found/1", folder)
    assert model_files.fetch_model("models:/found/1", folder) == kept
    assert [path.name for path in sorted(kept.iterdir())] == ["config.json", "model.safetensors"]
    assert model_files.fetch_model("models:/found/2", folder) != kept
    assert (kept / "model.safetensors").read_bytes() == (model_dir / "model.safetensors").read_bytes()
    fetched, saved = load_model(model_files.fetch_model("models:/found/1"))
    original, _ = load_model(model_dir)
    assert saved == read_saved_model(model_dir)
    assert all(bool((a == b).all()) for a, b in zip(fetched.parameters(), original.parameters(), strict=True))


def test_promotion_moves_the_champion_and_keeps_every_record(registered: Register) -> None:
    for _ in range(2):
        registered("promoted")
    first = registry.promote("models:/promoted/1", "best so far")
    second = registry.promote("models:/promoted@candidate", "better")
    assert (first["from"], first["to"], second["from"], second["to"]) == (None, 1, 1, 2)
    assert second["metrics"] == METRICS
    assert second["by"]
    assert second["at"] > first["at"]
    assert registry.promotions("promoted") == [first, second]
    assert registry.find_version("models:/promoted@champion").version == 2


@pytest.mark.parametrize("uri", ["models:/none@candidate", "models:/none/3", "nothing", "models:/x"])
def test_an_unknown_model_is_refused(uri: str, store: str) -> None:
    connect(store)
    with pytest.raises(ConfigError, match=r"models:/|no such model"):
        model_files.fetch_model(uri)
