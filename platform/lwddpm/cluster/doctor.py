"""`lwddpm doctor`: tries what jobs rely on, for real, and says what to do about what does not work."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from lwddpm.cluster.session import Session
from lwddpm.config import TrackingConfig, WorkersConfig
from lwddpm.data.phantom import simulate
from lwddpm.errors import LwddpmError
from lwddpm.evaluation.features import WEIGHTS_SHA256, WeightsUnavailable, read_weights
from lwddpm.tracking.store import check_tracking, connect, public

_GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One line of the report; `broken` means that jobs will fail."""

    name: str
    status: Literal["ok", "warning", "broken"]
    found: str
    remedy: str = ""


def examine(address: str | None, uri: str | None) -> dict[str, Any]:
    """Run every check.

    Returns:
        `healthy`: nothing is broken; `checks`: a list of name, status, found, remedy.
    """
    examinations: list[Callable[[], Check]] = [
        lambda: _ray(address),
        lambda: _mlflow(uri),
        _gpu,
        _memory,
        _disk,
        _phantom,
        lambda: _weights("fd_lite0"),
        lambda: _weights("fid"),
    ]
    checks = [_guarded(examination) for examination in examinations]
    return {"healthy": all(check.status != "broken" for check in checks), "checks": [asdict(c) for c in checks]}


def _guarded(examination: Callable[[], Check]) -> Check:
    """One broken check must not hide the others."""
    try:
        return examination()
    except Exception as error:
        return Check("unexpected", "broken", f"{type(error).__name__}: {error}", "please report this")


def _ray(address: str | None) -> Check:
    import ray

    start = time.perf_counter()
    try:
        with Session(WorkersConfig(), address) as session:
            total = sum(session.map(_square, [1, 2, 3], description="asking the workers"))
            resources = ray.cluster_resources()
    except (LwddpmError, ConnectionError, RuntimeError) as error:
        return Check("Ray", "broken", str(error), "check --address, RAY_ADDRESS and RAY_AUTH_MODE; see the README")
    if total != 14:
        return Check("Ray", "broken", f"tasks returned {total}, not 14", "reinstall ray")
    where = f"cluster at {session.address}" if session.address else "embedded"
    shape = f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
    return Check("Ray", "ok", f"{ray.__version__}, {where}, {shape}, ready in {time.perf_counter() - start:.1f} s")


def _square(value: int) -> int:
    return value * value


def _mlflow(uri: str | None) -> Check:
    import mlflow

    try:
        resolved = check_tracking(TrackingConfig(uri=uri))
        experiments = connect(resolved).search_experiments()
    except (LwddpmError, mlflow.MlflowException) as error:
        return Check(
            "MLflow", "broken", str(error), "start the server, or unset MLFLOW_TRACKING_URI to use SQLite here"
        )
    return Check("MLflow", "ok", f"{mlflow.__version__}, {public(resolved)}, {len(experiments)} experiments")


def _gpu() -> Check:
    count = torch.cuda.device_count()
    if count == 0:
        return Check(
            "GPU",
            "warning",
            "none that torch can use",
            "small jobs run on CPUs; jobs/paper.yaml wants GPUs (NVIDIA driver)",
        )
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
    return Check("GPU", "ok", f"{count}: {names}")


def _memory() -> Check:
    memory = psutil.virtual_memory()
    found = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free, {os.cpu_count()} CPUs"
    if memory.available < 4 * _GIB:
        return Check("memory", "warning", found, "the demo wants 4 GiB; close other programs")
    return Check("memory", "ok", found)


def _disk() -> Check:
    try:
        with tempfile.NamedTemporaryFile(dir=Path.cwd()) as file:
            file.write(b"probe")
    except OSError as error:
        return Check("working folder", "broken", str(error), "run from a folder that you can write to")
    free = shutil.disk_usage(Path.cwd()).free / _GIB
    if free < 5:
        return Check("working folder", "warning", f"{free:.1f} GiB free", "checkpoints and datasets want 5 GiB")
    return Check("working folder", "ok", f"{free:.0f} GiB free in {Path.cwd()}")


def _phantom() -> Check:
    try:
        simulate(seed=0, index=0, image_size=32)
    except (OSError, ImportError, LwddpmError) as error:
        return Check("embedded dataset", "broken", str(error), "reinstall nilearn")
    return Check("embedded dataset", "ok", "ICBM152 template of nilearn")


def _weights(name: str) -> Check:
    try:
        read_weights(name, inception_weights=None, download=False)
    except WeightsUnavailable as error:
        return Check(f"weights for {name}", "warning", str(error), "evaluation reports the other metrics meanwhile")
    return Check(f"weights for {name}", "ok", f"sha256 {WEIGHTS_SHA256[name][:12]}")
