"""Deliveries to a real store: nothing lost, nothing twice, whatever happens in between."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from lwddpm.errors import JobError
from lwddpm.tracking.delivery import Delivery
from lwddpm.tracking.outbox import Outbox
from lwddpm.tracking.store import connect

from ..processes import free_port, wait_until


def _logged(store: str, run_id: str, key: str = "train/loss") -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in connect(store).get_metric_history(run_id, key))


def _rows(*steps: int) -> dict[int, dict[str, float]]:
    return {step: {"train/loss": 1 / step} for step in steps}


def test_everything_arrives_and_the_outbox_is_empty(store: str, open_run: str, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    for first in range(1, 1201, 300):  # more than one request holds
        outbox.metrics(_rows(*range(first, first + 300)))
    outbox.images(1200, 3.0, np.zeros((16, 16, 16), np.uint8))
    outbox.checkpoint(1200, tmp_path / "step_1200")
    outbox.end("FINISHED", {"lwddpm.state": "complete"})
    Delivery(outbox, open_run, connect(store)).flush()
    assert outbox.waiting() == []
    assert _logged(store, open_run) == [(step, 1 / step) for step in range(1, 1201)]
    run = connect(store).get_run(open_run)
    assert run.info.status == "FINISHED"
    assert run.data.tags.items() >= {("lwddpm.checkpoint", str(tmp_path / "step_1200")), ("lwddpm.state", "complete")}
    assert "samples/epoch_0003.00.png" in {f.path for f in connect(store).list_artifacts(open_run, "samples")}


def test_it_delivers_by_itself_while_a_training_goes_on(
    store: str, open_run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lwddpm.tracking.delivery._EVERY_S", 0.05)
    outbox = Outbox(tmp_path / "outbox")
    delivery = Delivery(outbox, open_run, connect(store))
    outbox.metrics(_rows(1, 2))
    wait_until(lambda: not outbox.waiting(), 30)
    delivery.close()
    assert _logged(store, open_run) == [(1, 1.0), (2, 0.5)]


def test_killed_between_sending_and_forgetting_it_sends_again_and_doubles_nothing(
    store: str, open_run: str, tmp_path: Path
) -> None:
    outbox, copy = Outbox(tmp_path / "outbox"), tmp_path / "copy"
    outbox.metrics(_rows(1, 2, 3))
    shutil.copytree(outbox.folder, copy)
    for folder in (outbox.folder, copy):  # the copy: as the kill has left it, without any note of the delivery
        Delivery(Outbox(folder), open_run, connect(store)).flush()
    assert _logged(store, open_run) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_steps_repeated_after_a_crash_are_logged_once_with_their_first_value(
    store: str, open_run: str, tmp_path: Path
) -> None:
    outbox = Outbox(tmp_path / "outbox")
    delivery = Delivery(outbox, open_run, connect(store))
    outbox.metrics(_rows(1, 2, 3, 4))
    delivery.flush()
    outbox.metrics({step: {"train/loss": 9.0, "val/loss": 8.0} for step in (3, 4, 5)})  # on other hardware
    outbox.metrics({step: {"train/loss": 7.0} for step in (5, 6)})  # and again, before anything was sent
    delivery.flush()
    assert _logged(store, open_run) == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25), (5, 9.0), (6, 7.0)]
    assert _logged(store, open_run, "val/loss") == [(3, 8.0), (4, 8.0), (5, 8.0)]


def test_an_outage_stops_no_report_and_is_delivered_afterwards(
    store: str, open_run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outbox = Outbox(tmp_path / "outbox")
    away = Delivery(outbox, open_run, MlflowClient(f"http://127.0.0.1:{free_port()}"))
    start = time.monotonic()
    outbox.metrics(_rows(1))
    with pytest.raises(JobError, match=r"does not answer.*kept in .*the same command delivers it"):
        away.flush(patience_s=0)
    away.close()
    assert time.monotonic() - start < 10
    assert len(outbox.waiting()) == 1
    Delivery(outbox, open_run, connect(store)).flush()
    assert _logged(store, open_run) == [(1, 1.0)]


def test_what_the_store_will_never_take_is_said_at_once(store: str, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    outbox.metrics(_rows(1))
    start = time.monotonic()
    with pytest.raises(JobError, match=r"did not take a report \(.*0000.*kept in"):
        Delivery(outbox, "0" * 32, connect(store)).flush()
    assert time.monotonic() - start < 10
    assert len(outbox.waiting()) == 1
