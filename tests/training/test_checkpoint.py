import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lwddpm.config import DiffusionConfig, ModelConfig
from lwddpm.errors import CheckpointError
from lwddpm.models.build import build_model, count_parameters
from lwddpm.training.checkpoint import TrainingState, latest_checkpoint, load_checkpoint, read_state, save_checkpoint
from lwddpm.training.stored_files import FORMAT
from lwddpm.training.stored_model import SavedModel, load_model, read_saved_model, save_model

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
    for restored, saved in ((other, model), (other_ema, ema)):
        assert all(map(torch.equal, restored.state_dict().values(), saved.state_dict().values()))
    moments, expected = other_optimizer.state_dict()["state"], optimizer.state_dict()["state"]
    assert moments.keys() == expected.keys()
    assert all(torch.equal(moments[i][name], expected[i][name]) for i in expected for name in expected[i])


def test_the_checksums_are_those_that_sha256sum_reads(tmp_path: Path) -> None:
    model, optimizer = _trained(0)
    path = save_checkpoint(tmp_path, _state(7), {"model": model}, {"optimizer": optimizer}, keep=2)
    lines = [
        f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}"
        for name in ("model.safetensors", "optimizer.safetensors", "state.json")
    ]
    assert (path / "SHA256SUMS").read_text().splitlines() == lines


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


class _Bomb:
    """Unpickling it would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.trace,)


def test_a_pickle_in_place_of_weights_is_refused_and_not_run(tmp_path: Path) -> None:
    model, _ = _trained(0)
    path = save_model(tmp_path / "model", model, _saved())
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
    model, _ = _trained(0)
    path = save_model(tmp_path / "model", model, _saved())
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
    model, _ = _trained(0)
    path = save_model(tmp_path / "model", model, _saved())
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=expected):
        load_model(path)


def test_a_config_that_is_missing_or_endless_is_refused(tmp_path: Path) -> None:
    model, _ = _trained(0)
    path = save_model(tmp_path / "model", model, _saved())
    (path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(path)
    (path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda moments: moments | {"0.exp_avg": moments["0.exp_avg"] * float("inf")}, "must be finite"),
        (lambda moments: {f"9{key}": value for key, value in moments.items()}, "does not fit"),
        (lambda moments: moments | {"0.exp_avg": moments["0.exp_avg"].flatten()}, r"0\.exp_avg must be"),
    ],
)
def test_damaged_moments_are_refused(
    change: Callable[..., dict[str, torch.Tensor]], expected: str, tmp_path: Path
) -> None:
    model, optimizer = _trained(0)
    path = save_checkpoint(tmp_path, _state(7), {"model": model}, {"optimizer": optimizer}, keep=2)
    save_file(change(load_file(path / "optimizer.safetensors")), path / "optimizer.safetensors")
    (path / "SHA256SUMS").unlink()  # as of a folder that was made like that
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(path, {"model": model}, {"optimizer": optimizer}, CPU)


def test_a_full_disk_is_one_clear_error_and_keeps_the_earlier_checkpoint(tmp_path: Path) -> None:
    """The kernel refuses files over a size, as a full disk does in the middle of one."""
    code = f"""
import resource, sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_checkpoint import _state, _trained, save_checkpoint
model, optimizer = _trained(0)
folder = Path({str(tmp_path)!r})
save_checkpoint(folder, _state(1), {{"model": model}}, {{"optimizer": optimizer}}, keep=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
save_checkpoint(folder, _state(2), {{"model": model}}, {{"optimizer": optimizer}}, keep=1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "JobError" in done.stderr, done.stderr
    assert "step_00000002: cannot be written" in done.stderr
    assert "File too large" in done.stderr
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]
    model, optimizer = _trained(1)
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert load_checkpoint(latest, {"model": model}, {"optimizer": optimizer}, CPU) == _state(1)


@pytest.mark.parametrize(("file", "read"), [("state.json", read_state), ("config.json", read_saved_model)])
def test_what_a_later_version_wrote_is_refused_with_a_remedy(
    file: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    model, optimizer = _trained(0)
    if file == "state.json":
        path = save_checkpoint(tmp_path, _state(7), {"model": model}, {"optimizer": optimizer}, keep=2)
    else:
        path = save_model(tmp_path / "model", model, _saved())
    values = json.loads((path / file).read_text())
    assert values["format"] == FORMAT
    later = values | {"format": FORMAT + 1, "code_version": "9.0.0+abc", "a_new_key": 1}
    (path / file).write_text(json.dumps(later))
    (path / "SHA256SUMS").unlink(missing_ok=True)
    with pytest.raises(
        CheckpointError, match=rf"format must be at most {FORMAT}, got {FORMAT + 1}, .*9\.0\.0.*upgrade"
    ):
        read(path)
    (path / file).write_text(json.dumps(values | {"a_new_key": 1}))  # of this version there is no such file
    with pytest.raises(CheckpointError, match="a_new_key"):
        read(path)
