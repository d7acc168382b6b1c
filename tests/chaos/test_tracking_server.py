"""The MLflow server dies in the middle of a training, and again when the results are to be registered."""

import time
from collections.abc import Callable
from typing import Any

OUTAGE_S = 30


def test_an_outage_stops_no_training_and_loses_nothing(
    training: Callable[..., Any],
    reference: Callable[..., Any],
    assert_same_outcome: Callable[..., None],
    tracking_server: Any,
) -> None:
    expected = reference(1)
    tracking_server.start()
    disturbed = training(uri=tracking_server.uri)
    disturbed.start()
    disturbed.wait_for(lambda: disturbed.newest() >= 6, "the first checkpoint")
    tracking_server.kill()
    dead_since, reached = time.monotonic(), disturbed.newest()
    disturbed.wait_for(lambda: disturbed.newest() >= reached + 12, "two checkpoints during the outage")
    time.sleep(max(0.0, OUTAGE_S - (time.monotonic() - dead_since)))
    tracking_server.start()
    disturbed.wait_for(lambda: (disturbed.run_dir / "evaluation.json").exists(), "the evaluation")
    tracking_server.kill()
    time.sleep(5)
    tracking_server.start()
    disturbed.finish()
    assert len(disturbed.processes) == 1
    assert_same_outcome(disturbed, expected)
