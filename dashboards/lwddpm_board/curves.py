"""Curves of a run: what it has logged by optimizer step, thinned to what a screen can show."""

import math
from collections.abc import Iterable
from functools import lru_cache

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

Points = list[tuple[int, float | None]]

_MOST_POINTS = 500
_CACHED_CURVES = 512


def curve_names(run: Run) -> list[str]:
    """Metrics of a run that are curves: what training and validation log; losses first."""
    names = [name for name in run.data.metrics if name.startswith(("train/", "val/")) and name != "train/epoch"]
    order = ["train/loss", "val/loss", "train/images_per_s", "train/grad_norm", "train/lr", "train/peak_memory_mib"]
    return sorted(names, key=lambda name: (order.index(name) if name in order else 1.5, name))


def read_curves(client: MlflowClient, run: Run, names: Iterable[str]) -> dict[str, Points]:
    """(step, value) in order of steps, at most some hundreds of points a curve; NaN and infinity are None."""
    latest = {metric.key: metric for metric in run.data.to_proto().metrics}
    # what changes whenever a run has logged more, be it the same value again
    versions = {name: (latest[name].step, latest[name].timestamp, str(latest[name].value)) for name in names}
    return {
        name: _curve(client, run.info.run_id, name, (version, run.info.end_time)) for name, version in versions.items()
    }


@lru_cache(_CACHED_CURVES)
def _curve(client: MlflowClient, run_id: str, name: str, version: object) -> Points:
    history = client.get_metric_history(run_id, name)
    by_step = {point.step: point.value for point in sorted(history, key=lambda point: (point.step, point.timestamp))}
    return thin(list(by_step.items()))


def thin(points: list[tuple[int, float]], most: int = _MOST_POINTS) -> Points:
    """Means of equally many neighbours, each at its last step, where there are more than `most` points."""
    width = -(-len(points) // most)
    if width <= 1:
        return [(step, value if math.isfinite(value) else None) for step, value in points]
    thinned: Points = []
    for start in range(0, len(points), width):
        part = points[start : start + width]
        mean = sum(value for _, value in part) / len(part)
        thinned.append((part[-1][0], mean if math.isfinite(mean) else None))
    return thinned
