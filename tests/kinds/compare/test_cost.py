"""What is timed of a training: a job of its own, which must be valid whatever the training's workers are."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lwddpm.cluster.session import Session
from lwddpm.config import SamplingConfig, TrainJob, WorkersConfig
from lwddpm.data.store import open_dataset
from lwddpm.kinds.compare.cost import measure_cost, shortened
from lwddpm.training.loop import train
from lwddpm.training.reporter import SilentReporter


@pytest.mark.parametrize(
    ("batch_size", "count", "chunks", "share"),
    [
        (8, "2", 2, 4),
        (8, "{max: 3}", 2, 2),
        (11, "{max: 2}", 2, 4),  # 5 images for a worker do not divide over two chunks
        (10, "{min: 1, max: 2}", 4, 4),
        (7, "{max: 3}", 1, 2),
    ],
)
def test_a_workers_share_of_any_batch_divides_into_its_chunks(
    batch_size: int, count: str, chunks: int, share: int, tiny_job: Callable[..., TrainJob]
) -> None:
    job = tiny_job(
        f"training.batch_size={batch_size}",
        f"workers.count={count}",
        f"training.grad_accumulation_steps={chunks}",
    )
    timed = shortened(job, steps=3)
    assert (timed.training.batch_size, timed.workers.max_count) == (share, 1)
    assert timed.training.grad_accumulation_steps == chunks


@pytest.mark.cluster
def test_an_elastic_training_with_accumulation_is_timed(
    tiny_job: Callable[..., TrainJob], tiny_data: str, tmp_path: Path
) -> None:
    train(tiny_job("training.max_steps=1"), open_dataset(tiny_data), tmp_path, SilentReporter(), torch.device("cpu"))
    elastic = tiny_job("workers.count={max: 3}", "training.grad_accumulation_steps=2")
    sampling = SamplingConfig(sampler="ddim", num_inference_steps=2)
    costs = measure_cost(elastic, tiny_data, tmp_path / "model", sampling, 4, Session(WorkersConfig()))
    assert costs.keys() == {"images_per_s", "peak_memory_mib", "seconds_per_64"}
    assert costs["images_per_s"] > 0
