"""`lwddpm doctor`: tries what jobs need (Ray, MLflow, GPU, disk, weights) and says how to mend what does not work."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import ray
import torch

from lwddpm.addresses import public
from lwddpm.cluster.session import Session
from lwddpm.config import TrackingConfig, WorkersConfig
from lwddpm.data.phantom import simulate
from lwddpm.errors import JobError, LwddpmError
from lwddpm.evaluation.features import WEIGHTS_SHA256, WeightsUnavailable, read_weights
from lwddpm.head.jobserver import JobServer
from lwddpm.head.nodes import differences, survey
from lwddpm.tracking.store import check_tracking, connect, tracking_uri

_GIB = 2**30
_EXAMINED_WITHIN_S = 300.0


@dataclass(frozen=True)
class Check:
    """One line of the report; `broken` means that jobs will fail."""

    name: str
    status: Literal["ok", "warning", "broken"]
    found: str
    remedy: str = ""


def examine(address: str | None, uri: str | None) -> dict[str, Any]:
    """Run every check, on a cluster on every node of it.

    Args:
        address: of Ray, else RAY_ADDRESS, else Ray is started here; the http address of a job server has the checks
            run there.
        uri: MLflow store; default as for jobs.

    Returns:
        `healthy`: nothing is broken; `ray`: its version; `checks`: a list of name, status, found, remedy.
    """
    if address is not None and address.startswith(("http://", "https://")):
        return examine_there(address)
    examinations: list[Callable[[], Check | list[Check]]] = [
        lambda: _ray(address, uri),
        lambda: _mlflow(uri),
        _gpu,
        _memory,
        _disk,
        _phantom,
        lambda: _weights("fd_lite0"),
        lambda: _weights("fid"),
    ]
    checks = [check for examination in examinations for check in _guarded(examination)]
    healthy = all(check.status != "broken" for check in checks)
    return {"healthy": healthy, "ray": ray.__version__, "checks": [asdict(check) for check in checks]}


def examine_there(address: str) -> dict[str, Any]:
    """Run the checks as a job of the cluster behind a job server, where jobs would run.

    Raises:
        ConfigError: the job server cannot be used.
        JobError: the checks could not be run there; with what the job wrote.
    """
    server = JobServer(address)
    submission_id = server.examine()
    server.wait(submission_id, _EXAMINED_WITHIN_S)
    log = server.logs(submission_id)
    try:
        report: dict[str, Any] = json.loads(log[log.rindex("\n{\n") :])
    except ValueError:
        raise JobError(f"the checks did not run at {server.address}; what they wrote:\n{log.strip()}") from None
    if report["ray"] != ray.__version__:
        note = Check("Ray here", "warning", f"{ray.__version__}, the cluster's is {report['ray']}", "install the same")
        report["checks"].append(asdict(note))
    return report


def _guarded(examination: Callable[[], Check | list[Check]]) -> list[Check]:
    """One broken check must not hide the others."""
    try:
        result = examination()
    except Exception as error:
        return [Check("unexpected", "broken", f"{type(error).__name__}: {error}", "please report this")]
    return result if isinstance(result, list) else [result]


def _ray(address: str | None, uri: str | None) -> Check | list[Check]:
    start, session = time.perf_counter(), Session(WorkersConfig(), address)
    try:
        with session:
            total = sum(session.map(_square, [1, 2, 3], description="asking the workers"))
            resources = ray.cluster_resources()
            nodes = survey(Path.cwd(), tracking_uri(TrackingConfig(uri=uri))) if session.address else []
    except (LwddpmError, ConnectionError, RuntimeError) as error:
        remedy = "check --address, RAY_ADDRESS and RAY_AUTH_MODE; see the README"
        if session.address is None:
            remedy = "see docs/cluster.md for the variables that are obeyed, such as TMPDIR"
        return Check("Ray", "broken", str(error), remedy)
    if total != 14:
        return Check("Ray", "broken", f"tasks returned {total}, not 14", "reinstall ray")
    where = f"cluster at {session.address}" if session.address else "embedded"
    shape = f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
    answer = Check("Ray", "ok", f"{ray.__version__}, {where}, {shape}, ready in {time.perf_counter() - start:.1f} s")
    return [answer, *_nodes(nodes)]


def _nodes(nodes: list[dict[str, Any]]) -> list[Check]:
    """A line for each node, and one for what they must have in common."""
    checks = []
    for number, node in enumerate(nodes):
        name = f"node {number}, {node['host']}{' (driver)' if node['driver'] else ''}"
        if node["error"]:
            checks.append(
                Check(name, "broken", f"does not answer: {node['error']}", "look at its logs in Ray's dashboard")
            )
            continue
        faults = [node[what] for what in ("sees_storage", "writes_storage", "tracking") if node[what]]
        gpus = ", ".join(node["gpus"]) or "no GPU"
        packages = f"lwddpm {node['packages']['lwddpm']}, torch {node['packages']['torch']}"
        described = f"{packages}, {node['cpus']} CPUs, {gpus}; storage and tracking work"
        if faults:
            checks.append(Check(name, "broken", "; ".join(faults), "see docs/cluster.md"))
        else:
            checks.append(Check(name, "ok", described))
    if len(nodes) > 1 and (differing := differences(nodes)):
        checks.append(Check("versions", "broken", differing, "install the versions of constraints.txt on all nodes"))
    return checks


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
    amount = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free, {os.cpu_count()} CPUs"
    if memory.available < 4 * _GIB:
        return Check("memory", "warning", amount, "the demo wants 4 GiB; close other programs")
    return Check("memory", "ok", amount)


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
