"""The MLflow server dies in the middle of a training, and again when the results are to be registered."""

import time
from collections.abc import Callable
from typing import Any

OUTAGE_S = 30


def test_an_outage_stops_no_training_and_loses_nothing(
    training: Callable[..., Any], calm: Callable[..., Any], ended_alike: Callable[..., None], tracking_server: Any
) -> None:
    undisturbed = calm(1)
    tracking_server.start()
    hurt = training(uri=tracking_server.uri)
    hurt.start()
    hurt.wait_for(lambda: hurt.newest() >= 6, "the first checkpoint")
    tracking_server.kill()
    dead_since, reached = time.monotonic(), hurt.newest()
    hurt.wait_for(lambda: hurt.newest() >= reached + 12, "two checkpoints during the outage")
    time.sleep(max(0.0, OUTAGE_S - (time.monotonic() - dead_since)))
    tracking_server.start()
    hurt.wait_for(lambda: (hurt.run_dir / "evaluation.json").exists(), "the evaluation")
    tracking_server.kill()
    time.sleep(5)
    tracking_server.start()
    hurt.finish()
    assert len(hurt.processes) == 1
    ended_alike(hurt, undisturbed)
