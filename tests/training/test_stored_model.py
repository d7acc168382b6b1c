import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lwddpm.config import DiffusionConfig, ModelConfig
from lwddpm.errors import CheckpointError
from lwddpm.models.build import build_model, count_parameters
from lwddpm.training.stored_files import FORMAT
from lwddpm.training.stored_model import SavedModel, load_model, read_saved_model, save_model

MODEL = ModelConfig(dim=8, dim_mults=(1, 2))


def _network() -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_model(MODEL)
    with torch.no_grad():
        for parameter in network.parameters():  # layers that begin at zero would leave damage to others unseen
            parameter.add_(torch.randn_like(parameter) / 100)
    return network


def _saved() -> SavedModel:
    return SavedModel(
        model=MODEL,
        diffusion=DiffusionConfig(),
        image_size=16,
        dataset_version="v",
        dataset_simulated=True,
        training_digest="d",
        step=3,
        epoch=0.5,
        parameters=count_parameters(MODEL),
    )


def test_a_model_folder_round_trips_without_pickle(tmp_path: Path) -> None:
    model = _network()
    path = save_model(tmp_path / "model", model, _saved())
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "model.safetensors"]
    loaded, saved = load_model(path)
    assert saved == _saved()
    assert not loaded.training
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([1, 2])
    assert torch.equal(loaded(x, t), model.eval()(x, t))


class _Bomb:
    """Unpickling it would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.trace,)


def test_a_pickle_in_place_of_weights_is_refused_and_not_run(tmp_path: Path) -> None:
    path = save_model(tmp_path / "model", _network(), _saved())
    size = (path / "model.safetensors").stat().st_size
    bomb = pickle.dumps(_Bomb(tmp_path / "exploded"))
    (path / "model.safetensors").write_bytes(bomb + b"." * (size - len(bomb)))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(path)
    torch.save({"bomb": _Bomb(tmp_path / "exploded")}, path / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_model(path)
    assert not (tmp_path / "exploded").exists()


def test_damaged_or_foreign_weights_are_refused(tmp_path: Path) -> None:
    path = save_model(tmp_path / "model", _network(), _saved())
    weights = load_file(path / "model.safetensors")
    first = next(name for name, value in weights.items() if value.ndim > 1)
    for damaged, expected in (
        (weights | {first: weights[first] * float("nan")}, "must be finite"),
        (weights | {first: weights[first] / 0}, "must be finite"),
        ({first: weights[first]}, r"does not fit .* takes [\d,]+ to [\d,]+ bytes"),
        (weights | {first: weights[first].flatten()}, rf"{first} must be torch.float32 \["),
        (weights | {first: weights[first].view(torch.int32)}, rf"{first} must be torch.float32"),
        ({f"{name}." if name == first else name: value for name, value in weights.items()}, "is missing"),
        (weights | {"extra": torch.zeros(1)}, "extra is not part of it"),
    ):
        save_file(damaged, path / "model.safetensors")
        with pytest.raises(CheckpointError, match=expected):
            load_model(path)
    save_file(weights | {"extra": torch.zeros(10**7)}, path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"bytes; has 40,"):
        load_model(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"__class__": "os.system"}, "__class__"),
        ({"model": {"dim": 8, "dim_mults": [1, 2], "hook": "os.system"}}, "hook"),
        ({"model": {"dim": 80_000, "dim_mults": [9, 9]}}, "does not fit the network of its config"),
        ({"model": {"dim": 8 * 10**12, "dim_mults": [10**9, 9]}}, "no network can be that large"),
        ({"model": {"dim": 8 * 10**40, "dim_mults": [1, 9]}}, "no network can be that large"),
        ({"image_size": 10**9}, "image_size"),
        ({"dataset_version": "v" * 2_000_000}, "at most 1,000,000 bytes"),
    ],
)
def test_a_config_that_is_not_one_is_refused_before_anything_is_allocated(
    change: dict[str, object], expected: str, tmp_path: Path
) -> None:
    path = save_model(tmp_path / "model", _network(), _saved())
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=expected):
        load_model(path)


def test_a_config_that_is_missing_or_endless_is_refused(tmp_path: Path) -> None:
    path = save_model(tmp_path / "model", _network(), _saved())
    (path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(path)
    (path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_model(path)


def test_what_a_later_version_wrote_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = save_model(tmp_path / "model", _network(), _saved())
    values = json.loads((path / "config.json").read_text())
    assert values["format"] == FORMAT
    later = values | {"format": FORMAT + 1, "code_version": "9.0.0+abc", "a_new_key": 1}
    (path / "config.json").write_text(json.dumps(later))
    with pytest.raises(
        CheckpointError, match=rf"format must be at most {FORMAT}, got {FORMAT + 1}, .*9\.0\.0.*upgrade"
    ):
        read_saved_model(path)
    (path / "config.json").write_text(json.dumps(values | {"a_new_key": 1}))  # of this version there is no such file
    with pytest.raises(CheckpointError, match="a_new_key"):
        read_saved_model(path)
