"""What a job exports; that it arrives in Prometheus is tested with the dashboards."""

import subprocess
import sys

import pytest

from lwddpm import progress
from lwddpm.cluster.exported import GAUGES, ExportedSeries


def _values(metrics: ExportedSeries) -> dict[str, float]:
    return {name + "".join(f" {value}" for _, value in labels): v for (name, labels), v in metrics._values.items()}


def test_reports_become_gauges_by_the_mean_of_their_rows() -> None:
    metrics = ExportedSeries("job", "run")
    metrics.metrics({1: {"train/loss": 1.0}, 2: {"train/loss": 2.0, "train/images_per_s": 7.0}})
    metrics.metrics({2: {"val/loss": 5.0, "eval/fd_lite0": 3.0}})  # final numbers are MLflow's
    assert _values(metrics) == {"train_loss": 1.5, "train_images_per_s": 7.0, "val_loss": 5.0}
    metrics.metrics({3: {"train/loss": 4.0}})
    assert _values(metrics)["train_loss"] == 4.0
    metrics.training_ended()
    assert _values(metrics) == {}


def test_a_second_start_towards_the_same_step_is_a_restart() -> None:
    metrics = ExportedSeries("search", "run", "3")
    for until in (2, 6):  # two rungs of a trial
        for rank in (1, 0):
            metrics.worker_started(rank, 2, until, f"GPU-{rank}", {})
    assert _values(metrics) == {"workers": 2, "worker_restarts": 0, "gpu_worker 0 GPU-0": 1, "gpu_worker 1 GPU-1": 1}
    metrics.worker_started(0, 1, 6, "GPU-7", {})  # with one worker less
    assert _values(metrics) == {"workers": 1, "worker_restarts": 1, "gpu_worker 0 GPU-7": 1}


def test_progress_bars_are_followed_by_the_innermost_job() -> None:
    with ExportedSeries("search", "a") as outer, ExportedSeries("search", "b", "0") as inner:
        with progress.bar("sampling", 8) as bar:
            bar.advance_to(2)
        assert _values(inner) == {"progress sampling": 0.25}
        assert _values(outer) == {}
    assert not progress.observers


def test_names_and_labels_are_those_declared() -> None:
    metrics = ExportedSeries("job", "run")
    with pytest.raises(KeyError):
        metrics.set("loss", 1.0)
    with pytest.raises(ValueError, match="labels must be"):
        metrics.set("progress", 1.0, step="sampling")
    assert all(metric.description for metric in GAUGES.values())


def test_without_ray_nothing_is_exported_and_none_is_started() -> None:
    code = (
        "import ray\n"
        "from lwddpm.cluster.exported import ExportedSeries\n"
        "with ExportedSeries('job', 'run') as metrics:\n"
        "    metrics.worker_started(0, 1, None, '', {'CPU': 1})\n"
        "    metrics.publish()\n"
        "assert not ray.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # in this process Ray may be running for other tests
