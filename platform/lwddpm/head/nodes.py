"""Asks every node of a cluster for its packages, storage, tracking and GPUs: a part of `lwddpm doctor --address`."""

import secrets
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

PACKAGES = ("lwddpm", "ray", "torch", "mlflow", "optuna", "pyarrow", "numpy")
_TIMEOUT_S = 120.0


def survey(storage: Path, tracking_uri: str) -> list[dict[str, Any]]:
    """Ask every node, the driver's first.

    Args:
        storage: folder that all nodes should share; the driver's working folder.
        tracking_uri: MLflow store that drivers and trials write to.

    Returns:
        A dict for each node: `host`, `driver`, `python`, `packages`, `gpus`, `sees_storage`, `writes_storage`,
        `tracking`, or `error` where it did not answer. Reasons are strings, empty where all is well.
    """
    probe = storage / f".lwddpm-doctor-{secrets.token_hex(4)}"
    here = ray.get_runtime_context().get_node_id()
    nodes = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != here)
    ask = ray.remote(num_cpus=0)(_describe)
    probe.mkdir()
    try:
        (probe / "driver").write_text("probe")
        pending = {
            node["NodeID"]: ask.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(str(probe), node["NodeID"], tracking_uri)
            for node in nodes
        }
        return [_answer(node, pending[node["NodeID"]], probe, here) for node in nodes]
    finally:
        for file in probe.iterdir():
            file.unlink()
        probe.rmdir()


def _answer(node: dict[str, Any], pending: Any, probe: Path, here: str) -> dict[str, Any]:
    known = {"host": node["NodeManagerHostname"], "driver": node["NodeID"] == here, "error": ""}
    try:
        answer: dict[str, Any] = ray.get(pending, timeout=_TIMEOUT_S)
    except ray.exceptions.RayError as error:
        return known | {"error": str(error).splitlines()[0]}
    if not answer["writes_storage"] and not (probe / node["NodeID"]).exists():
        answer["writes_storage"] = "what it writes there is not seen by the driver: another folder of that name"
    return known | answer


def _describe(probe: str, node_id: str, tracking_uri: str) -> dict[str, Any]:
    """Runs on the node."""
    import torch

    from lwddpm.cluster.session import usable_cpus
    from lwddpm.config import TrackingConfig
    from lwddpm.errors import LwddpmError
    from lwddpm.tracking.store import check_tracking, connect

    folder = Path(probe)
    sees = "" if (folder / "driver").exists() else f"{folder.parent} is not the driver's: mount one folder on all nodes"
    writes = ""
    try:
        (folder / node_id).write_text("probe")
    except OSError as error:
        writes = f"{folder.parent} cannot be written: {error.strerror}"
    tracking = ""
    try:
        connect(check_tracking(TrackingConfig(uri=tracking_uri))).search_experiments(max_results=1)
    except LwddpmError as error:
        tracking = str(error)
    return {
        "host": socket.gethostname(),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "cpus": usable_cpus(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "sees_storage": sees,
        "writes_storage": writes,
        "tracking": tracking,
    }


def _version(package: str) -> str | None:
    import lwddpm

    if package == "lwddpm":  # uploaded code is not an installed package
        return lwddpm.__version__
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def differences(nodes: Sequence[dict[str, Any]]) -> str:
    """Which packages differ from the driver's, in words; empty where all nodes have the same."""
    first, *others = [node for node in nodes if not node["error"]]
    lines = []
    for node in others:
        theirs = {"python": node["python"], **node["packages"]}
        ours = {"python": first["python"], **first["packages"]}
        differing = [f"{name} {theirs[name]} instead of {ours[name]}" for name in ours if ours[name] != theirs[name]]
        if differing:
            lines.append(f"{node['host']}: {', '.join(differing)}")
    return "; ".join(lines)
