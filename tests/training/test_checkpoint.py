import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lwddpm.config import DiffusionConfig, ModelConfig
from lwddpm.errors import CheckpointError
from lwddpm.models.build import build_model, count_parameters
from lwddpm.training.checkpoint import (
    SavedModel,
    TrainingState,
    latest_checkpoint,
    load_checkpoint,
    load_model,
    save_checkpoint,
    save_model,
)

MODEL = ModelConfig(dim=8, dim_mults=(1, 2))
CPU = torch.device("cpu")


def _state(step: int) -> TrainingState:
    return TrainingState(step=step, training_digest="d", dataset_version="v", initial_loss=0.5)


def _trained(seed: int) -> tuple[torch.nn.Module, torch.optim.Adam]:
    torch.manual_seed(seed)
    model = build_model(MODEL)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 1, 16, 16), torch.zeros(2, dtype=torch.long)).square().sum().backward()
    optimizer.step()
    return model, optimizer


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


def test_a_checkpoint_restores_weights_moments_and_state(tmp_path: Path) -> None:
    model, optimizer = _trained(0)
    ema, _ = _trained(1)
    path = save_checkpoint(tmp_path, _state(7), {"model": model, "ema": ema}, {"optimizer": optimizer}, keep=2)
    other, other_optimizer = _trained(2)
    other_ema, _ = _trained(3)
    modules, optimizers = {"model": other, "ema": other_ema}, {"optimizer": other_optimizer}
    assert load_checkpoint(path, modules, optimizers, CPU) == _state(7)
    for found, expected in ((other, model), (other_ema, ema)):
        assert all(map(torch.equal, found.state_dict().values(), expected.state_dict().values()))
    found, expected = other_optimizer.state_dict()["state"], optimizer.state_dict()["state"]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[i][name], expected[i][name]) for i in expected for name in expected[i])


def test_only_the_newest_are_kept_and_the_newest_is_found(tmp_path: Path) -> None:
    model, optimizer = _trained(0)
    for step in (9, 10, 11):
        save_checkpoint(tmp_path, _state(step), {"model": model}, {"optimizer": optimizer}, keep=2)
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step_00000010", "step_00000011"]
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert latest.name == "step_00000011"


def test_half_a_checkpoint_of_a_killed_process_is_not_taken(tmp_path: Path) -> None:
    partial = tmp_path / "checkpoints" / "step_00000009"
    partial.mkdir(parents=True)
    (partial / "model.safetensors").write_text("half")
    assert latest_checkpoint(tmp_path) is None


def test_a_model_folder_round_trips_without_pickle(tmp_path: Path) -> None:
    model, _ = _trained(0)
    path = save_model(tmp_path / "model", model, _saved())
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "model.safetensors"]
    loaded, saved = load_model(path)
    assert saved == _saved()
    assert not loaded.training
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([1, 2])
    assert torch.equal(loaded(x, t), model.eval()(x, t))


def test_damaged_or_foreign_models_are_refused(tmp_path: Path) -> None:
    model, _ = _trained(0)
    path = save_model(tmp_path / "model", model, _saved())
    weights = load_file(path / "model.safetensors")
    first = next(iter(weights))

    save_file(weights | {first: weights[first] * float("nan")}, path / "model.safetensors")
    with pytest.raises(CheckpointError, match="must be finite"):
        load_model(path)
    save_file({first: weights[first]}, path / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_model(path)
    (path / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n.")  # a pickle is not read, let alone run
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"__class__": "os.system"}))
    with pytest.raises(CheckpointError, match="__class__"):
        load_model(path)
    (path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_model(path)
