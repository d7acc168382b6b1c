import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lwddpm.config import ModelConfig
from lwddpm.errors import CheckpointError
from lwddpm.models.build import build_model
from lwddpm.training.checkpoint import TrainingState, latest_checkpoint, load_checkpoint, read_state, save_checkpoint
from lwddpm.training.stored_files import FORMAT

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


def test_what_a_later_version_wrote_is_refused_with_a_remedy(tmp_path: Path) -> None:
    model, optimizer = _trained(0)
    path = save_checkpoint(tmp_path, _state(7), {"model": model}, {"optimizer": optimizer}, keep=2)
    values = json.loads((path / "state.json").read_text())
    assert values["format"] == FORMAT
    later = values | {"format": FORMAT + 1, "code_version": "9.0.0+abc", "a_new_key": 1}
    (path / "state.json").write_text(json.dumps(later))
    (path / "SHA256SUMS").unlink()
    with pytest.raises(
        CheckpointError, match=rf"format must be at most {FORMAT}, got {FORMAT + 1}, .*9\.0\.0.*upgrade"
    ):
        read_state(path)
    (path / "state.json").write_text(json.dumps(values | {"a_new_key": 1}))  # of this version there is no such file
    with pytest.raises(CheckpointError, match="a_new_key"):
        read_state(path)
