import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lwddpm.errors import JobError
from lwddpm.training import checkpoint_writer
from lwddpm.training.checkpoint import TrainingState, is_whole, write_checkpoint
from lwddpm.training.checkpoint_writer import CheckpointWriter


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that takes nothing until the event is set."""
    ready = threading.Event()

    def wait_and_write(*arguments: Any) -> Path:
        assert ready.wait(30)
        return write_checkpoint(*arguments)

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", wait_and_write)
    yield ready
    ready.set()


class Training:
    """A network and its optimizer, after a step; in channels_last, whose memory is not in the order of a file."""

    def __init__(self) -> None:
        self.network = torch.nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=0.1)
        self.step()

    def step(self) -> None:
        self.network(torch.randn(1, 2, 4, 4)).square().sum().backward()
        self.optimizer.step()

    def save(self, writer: CheckpointWriter, step: int) -> None:
        state = TrainingState(step=step, training_digest="d", dataset_version="v", initial_loss=None)
        writer.save(state, {"model": self.network}, {"optimizer": self.optimizer})


def test_it_holds_the_moment_of_saving_however_long_the_disk_takes(tmp_path: Path, disk: threading.Event) -> None:
    training = Training()
    with CheckpointWriter(tmp_path, keep=2) as writer:
        weight, moment = (
            value.clone()
            for value in (training.network.weight, training.optimizer.state[training.network.weight]["exp_avg"])
        )
        training.save(writer, 1)
        assert writer.finished(wait=False) is None, "the training goes on before the disk has it"
        training.step()
        assert not torch.equal(training.network.weight, weight)
        disk.set()
        step, path = writer.finished(wait=True) or (0, tmp_path)
    assert (step, path.name, is_whole(path)) == (1, "step_00000001", True)
    assert torch.equal(load_file(path / "model.safetensors")["weight"], weight)
    assert torch.equal(load_file(path / "optimizer.safetensors")["0.exp_avg"], moment)


def test_the_older_one_stays_until_the_newer_is_whole(tmp_path: Path, disk: threading.Event) -> None:
    training = Training()
    disk.set()
    with CheckpointWriter(tmp_path, keep=1) as writer:
        training.save(writer, 1)
        assert writer.finished(wait=True)
        disk.clear()
        training.save(writer, 2)
        assert [path.name for path in (tmp_path / "checkpoints").glob("step_*")] == ["step_00000001"]
        disk.set()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000002"]


def test_leaving_waits_for_the_disk_after_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), CheckpointWriter(tmp_path, keep=1) as writer:  # noqa: PT012
        Training().save(writer, 1)
        raise KeyboardInterrupt
    assert is_whole(tmp_path / "checkpoints" / "step_00000001")


def test_what_the_disk_refuses_is_said(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with CheckpointWriter(tmp_path, keep=1) as writer:
        Training().save(writer, 1)
        with pytest.raises(JobError, match="cannot be written"):
            writer.finished(wait=True)
        assert writer.finished(wait=True) is None, "once"
