"""Whole nodes die: several raylets on this machine, and the head."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

FREQUENT_RESIZE = Path(__file__).with_name("frequent_resize.py")


def _node_of(cluster: Any, worker: psutil.Process) -> Any:
    """The node whose raylet has started a worker."""
    parent = worker.ppid()
    return next(node for node in cluster.worker_nodes if node.all_processes["raylet"][0].process.pid == parent)


def test_a_node_is_killed_while_a_checkpoint_is_written_and_replaced(
    training: Callable[..., Any],
    reference: Callable[..., Any],
    assert_same_outcome: Callable[..., None],
    ray_nodes: Callable[..., Any],
) -> None:
    expected = reference(2)
    disturbed = training("workers.count=2")
    cluster = ray_nodes(disturbed.environment["CHAOS"])
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    disturbed.start("--address", cluster.address)
    disturbed.wait_for(lambda: disturbed.newest() >= 12, "the second checkpoint")
    workers = disturbed.stop_while_writing(disturbed.workers)
    cluster.remove_node(_node_of(cluster, workers[0]), allow_graceful=False)
    for worker in workers:
        worker.kill()
    cluster.add_node(num_cpus=1)
    disturbed.finish()
    assert len(disturbed.processes) == 1
    assert_same_outcome(disturbed, expected)


def test_an_elastic_group_shrinks_grows_and_saves_a_checkpoint_before_a_preemption(
    training: Callable[..., Any], reference: Callable[..., Any], ray_nodes: Callable[..., Any]
) -> None:
    endless = ("training.max_steps=1000000", "training.lr_schedule=constant", "training.snapshot_epochs=[]")
    disturbed = training("workers.count={min: 1, max: 2}", *endless)
    disturbed.command = (sys.executable, str(FREQUENT_RESIZE))
    cluster = ray_nodes(disturbed.environment["CHAOS"])
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    driver = disturbed.start("--address", cluster.address)
    disturbed.wait_for(
        lambda: disturbed.newest() >= 12 and len(disturbed.workers()) == 2, "a checkpoint of two workers"
    )
    cluster.remove_node(_node_of(cluster, disturbed.workers()[0]), allow_graceful=False)
    reached = disturbed.newest()
    disturbed.wait_for(
        lambda: disturbed.newest() > reached + 6 and len(disturbed.workers()) == 1, "a checkpoint of one worker"
    )
    cluster.add_node(num_cpus=1)
    disturbed.wait_for(lambda: len(disturbed.workers()) == 2, "two workers again")
    reached = disturbed.newest()
    disturbed.wait_for(lambda: disturbed.newest() > reached + 6, "a checkpoint of two workers again")
    group = disturbed.workers()
    _announce_the_end(cluster.address, _node_of(cluster, group[1]).node_id)
    disturbed.wait_for(
        lambda: not any(worker.is_running() for worker in group), "the end of the group on a leaving node"
    )
    reached = disturbed.newest()
    disturbed.wait_for(lambda: disturbed.history("train/loss")[-1][0] >= reached, "what it reported")
    assert disturbed.history("train/loss")[-1][0] == reached, "the group ended without a checkpoint"
    disturbed.wait_for(lambda: disturbed.newest() > reached, "a checkpoint after the preemption")
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=120) == 130, disturbed.log
    assert len(disturbed.processes) == 1
    assert disturbed.run().info.status == "KILLED"
    losses = disturbed.history("train/loss")
    assert [step for step, _ in losses] == list(range(1, len(losses) + 1)), "a step is missing or doubled"
    expected = reference(1, "training.lr_schedule=constant", f"training.max_steps={len(losses)}").history("train/loss")
    assert [loss for _, loss in losses] == pytest.approx([loss for _, loss in expected], rel=1e-4)


def _announce_the_end(address: str, node_id: str) -> None:
    """As an autoscaler, or a cloud that takes back a spot machine."""
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", address, "--node-id", node_id]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    subprocess.run([*command, "--deadline-remaining-seconds", "300"], check=True, capture_output=True)


def test_the_head_is_killed_and_another_one_goes_on(
    training: Callable[..., Any],
    reference: Callable[..., Any],
    assert_same_outcome: Callable[..., None],
    ray_nodes: Callable[..., Any],
) -> None:
    expected = reference(1)
    disturbed = training("workers.count=1")
    disturbed.environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = (
        "10"  # the driver waits a minute for it by default
    )
    first = ray_nodes(disturbed.environment["CHAOS"], head_cpus=1)
    driver = disturbed.start("--address", first.address)
    disturbed.wait_for(lambda: disturbed.newest() >= 12, "the second checkpoint")
    frozen = disturbed.stop_while_writing(disturbed.workers)
    first.head_node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
    for worker in frozen:
        worker.kill()
    assert driver.wait(timeout=200) == 1, disturbed.log
    assert "error: the Ray cluster was lost" in disturbed.log
    second = ray_nodes(disturbed.environment["CHAOS"], head_cpus=1)
    assert disturbed.start("--address", second.address).wait(timeout=300) == 0, disturbed.log
    assert_same_outcome(disturbed, expected)
