"""What the training loop relies on, of every reporter. A new one is a line in REPORTERS."""

import copy
import itertools
import math
import queue
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lwddpm.cluster.listener import WorkerReporter
from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.kinds.compare import cost
from lwddpm.tracking.outbox import Outbox
from lwddpm.training.loop import train
from lwddpm.training.reporter import RecordingReporter, Reporter, SilentReporter

REPORTERS: dict[str, Callable[[Path], Reporter]] = {
    "silent": lambda folder: SilentReporter(),
    "recording": lambda folder: RecordingReporter(),
    "outbox": lambda folder: Outbox(folder / "outbox"),
    "worker": lambda folder: WorkerReporter(folder / "outbox", queue.Queue()),
    "cost": lambda folder: cost._Throughput(),
}
ROW = {"train/loss": 0.5, "train/images_per_s": 9.0}


@pytest.fixture(params=REPORTERS)
def reporter(request: pytest.FixtureRequest, tmp_path: Path) -> Reporter:
    return REPORTERS[request.param](tmp_path)


def test_calls_come_in_any_order(reporter: Reporter, tmp_path: Path) -> None:
    calls: list[Callable[[int], None]] = [
        lambda step: reporter.metrics({step: ROW}),
        lambda step: reporter.images(step, step / 7, np.zeros((16, 16, 16), np.uint8)),
        lambda step: reporter.checkpoint(step, tmp_path / f"step_{step:08d}"),  # may be removed again by now
        lambda step: reporter.warning(step, "of something"),
    ]
    for order in itertools.permutations(calls):
        for call in order:
            call(10)


def test_steps_may_come_back_and_come_twice(reporter: Reporter, tmp_path: Path) -> None:
    for step in (1, 5, 5, 3, 10**9):
        reporter.metrics({step: ROW})
        reporter.images(step, 0.5, np.zeros((4, 8, 8), np.uint8))
        reporter.checkpoint(step, tmp_path)


def test_rows_may_differ_in_their_names_be_empty_and_unsorted(reporter: Reporter) -> None:
    reporter.metrics({7: ROW, 3: {"val/loss": 1.0}, 5: {}, 4: {"a name/that is new_%": 1.0}})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, 1e-300, 1e300])
def test_any_float_is_a_number(value: float, reporter: Reporter) -> None:
    reporter.metrics({1: {"train/loss": value, "train/images_per_s": value}})


@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 1, 1), (16, 16, 16), (17, 20, 33)])
def test_images_have_any_size_and_number(shape: tuple[int, int, int], reporter: Reporter) -> None:
    reporter.images(3, 0.25, np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))


def test_what_is_reported_is_not_changed(reporter: Reporter) -> None:
    rows, images = {1: dict(ROW), 2: {"val/loss": math.inf}}, np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
    given = copy.deepcopy(rows), images.copy()
    images.flags.writeable = False
    reporter.metrics(rows)
    reporter.images(1, 0.5, images)
    assert rows == given[0]
    assert np.array_equal(images, given[1])


@pytest.fixture(scope="module")
def trained_in_silence(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of a training that nobody listened to, once it has been made."""
    return {"folder": tmp_path_factory.mktemp("silent")}


def test_a_training_is_the_same_whoever_listens(
    reporter: Reporter,
    trained_in_silence: dict[str, Path],
    tiny_job: Callable[..., TrainJob],
    tiny_dataset: Dataset,
    tmp_path: Path,
) -> None:
    job, cpu, silent = tiny_job("training.max_steps=3"), torch.device("cpu"), trained_in_silence["folder"]
    train(job, tiny_dataset, silent, SilentReporter(), cpu)  # at once where it is made already
    assert train(job, tiny_dataset, tmp_path / "run", reporter, cpu).finished
    expected, weights = (load_file(folder / "model/model.safetensors") for folder in (silent, tmp_path / "run"))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
