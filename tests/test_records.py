"""The judge of benchmarks/records.py, and that docs/records.md shows what it kept."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from lwddpm.jobfile import load_job
from lwddpm.training.crops import on_crops

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))  # of scripts, which import from beside them
_spec = importlib.util.spec_from_file_location("records", ROOT / "benchmarks" / "records.py")
assert _spec is not None
assert _spec.loader is not None
records = importlib.util.module_from_spec(_spec)
sys.modules["records"] = records
_spec.loader.exec_module(records)


def entry(**changes):
    values = {
        "track": "B",
        "date": "2026-01-01",
        "change": "a change",
        "job": "jobs/x.yaml",
        "digest": "d",
        "dataset": "v",
        "extractor": "e",
        "seeds": [1, 2, 3],
        "fd_lite0": [100.0, 101.0, 102.0],
        "recall_lite0": [0.2, 0.2, 0.2],
        "nearest": [25.0, 25.0, 25.0],
        "time": 1.0,
        "step_ms": 50.0,
        "floor": 22.0,
        "nearest_floor": 20.0,
        "calls": 20,
        "guidance": 1.0,
        "machine": "1 thread",
    }
    return records.Entry(**values | changes)


def test_what_is_clearly_better_is_a_record():
    assert records.faults_of(entry(), []) == []
    assert records.faults_of(entry(fd_lite0=[50.0, 52.0, 51.0]), [entry()]) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"fd_lite0": [99.0, 101.5, 101.0]}, "not better than the record"),
        ({"fd_lite0": [50.0, 51.0], "seeds": [1, 2]}, "3 training seeds"),
        ({"fd_lite0": [50.0, float("nan"), 51.0]}, "finite"),
        ({"copying": ["the model returns training slices"]}, "returns training slices"),
        ({"recall_lite0": [0.1, 0.2, 0.2]}, "recall"),
        ({"time": 1.5}, "1.50 times the base's time"),
        ({"time": float("nan")}, "finite"),
        ({"dataset": "other"}, "must be those of the track"),
    ],
)
def test_each_rule_is_enforced(changes, fault):
    better = {"fd_lite0": [50.0, 52.0, 51.0]} | changes
    faults = records.faults_of(entry(**better), [entry()])
    assert any(fault in each for each in faults), faults


def test_it_is_judged_against_the_last_record_and_not_against_what_failed():
    failed = entry(fd_lite0=[10.0, 10.5, 11.0], faults=["the model returns training slices"])
    record = entry(fd_lite0=[60.0, 61.0, 62.0])
    assert records.faults_of(entry(fd_lite0=[50.0, 51.0, 50.5]), [entry(), record, failed]) == []
    assert records.faults_of(entry(fd_lite0=[70.0, 71.0, 70.5]), [entry(), record, failed])


def test_times_are_what_track_d_compares():
    base = entry(track="D", fd_lite0=[89.0, 88.0, 90.0])
    fast = entry(track="D", fd_lite0=[89.0, 88.0, 90.0], time=0.25)
    assert records.faults_of(fast, [base]) == []
    hardly_faster = entry(track="D", fd_lite0=[89.0, 88.0, 90.0], time=0.24)
    assert any("0.24 times" in fault for fault in records.faults_of(hardly_faster, [base, fast]))
    one_seed_above = entry(track="D", fd_lite0=[79.0, 78.0, 91.0], time=0.05)
    assert any("above 90" in fault for fault in records.faults_of(one_seed_above, [base]))


def test_the_time_of_a_training_is_its_steps_and_what_each_takes(tiny_dataset, tiny_overrides, monkeypatch):
    monkeypatch.setattr(records, "TURNS", 4)
    monkeypatch.setattr(records, "TURN_S", 0.3)
    track = records.TRACKS["A"]._replace(overrides=(*tiny_overrides, "training.max_steps=1000"))
    half = [*tiny_overrides, "training.max_steps=500"]
    time, step_ms = records.relative_time(track, "jobs/demo.yaml", half, str(tiny_dataset.path))
    assert 0.25 < time < 1
    assert step_ms > 0


def test_a_training_on_crops_is_timed_with_its_share_of_them(tiny_dataset, tiny_overrides, monkeypatch):
    seen = []

    def take(step, number):
        seen.append(on_crops(step.job.training.patches, number, step.schedule.num_steps))

    monkeypatch.setattr(records.DenoisingStep, "take", take)
    for until in (1, 0.4):
        job = load_job("demo", [*tiny_overrides, f"training.patches={{share: 0.3, until: {until}}}"])
        step, told = records.training_step(job, str(tiny_dataset.path))
        step()
        assert told == (8, records.TOGETHER)
        assert (len(seen), sum(seen)) == (records.TOGETHER, 0.3 * records.TOGETHER)
        seen.clear()


def test_distance_to_the_nearest_is_scipy_s():
    rng = np.random.default_rng(0)
    images, train = (rng.integers(0, 256, (num, 8, 8), dtype=np.uint8) for num in (301, 500))
    tree = cKDTree(train.reshape(500, -1).astype(float))
    wanted = np.sort(tree.query(images.reshape(301, -1).astype(float))[0])[150] / 8
    assert records.nearest_median(images, train) == pytest.approx(wanted, rel=1e-5)
    assert records.nearest_median(train[:10], train) == 0


def test_the_page_shows_what_was_kept():
    page = records.PAGE.read_text()
    shown = page.split(records.BEGIN)[1].split(records.END)[0].strip()
    assert shown == records.tables(records.read()).strip()
    assert all(
        record.faults == records.faults_of(record, records.read()[:i]) for i, record in enumerate(records.read())
    )
