"""The curves of a training: from its run folder, or from MLflow where an earlier version wrote the folder."""

from pathlib import Path

from lwddpm.progress import say
from lwddpm.tracking.delivery import STORE_ERRORS, reason_of
from lwddpm.tracking.metric_log import Curves, MetricLog
from lwddpm.tracking.runs import TrackedRun


def training_curves(run_dir: Path, run: TrackedRun) -> Curves:
    """All that a training has reported, by metric, in order of steps.

    Args:
        run: the training's MLflow run; asked only about steps that the folder does not have.
    """
    curves = MetricLog(run_dir).curves()
    if curves and min(points[0][0] for points in curves.values()) <= 1:  # from the first step on
        return curves
    try:
        logged = _curves_in_mlflow(run)
    except STORE_ERRORS as error:
        say(f"{run_dir.name}: figures lack steps that only MLflow has kept: {reason_of(error)}")
        return curves
    names = sorted(logged.keys() | curves.keys())
    return {name: sorted((dict(logged.get(name, [])) | dict(curves.get(name, []))).items()) for name in names}


def _curves_in_mlflow(run: TrackedRun) -> Curves:
    names = [name for name in run.client.get_run(run.run_id).data.metrics if name.startswith(("train/", "val/"))]
    return {name: run.history(name) for name in names}
