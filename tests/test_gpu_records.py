"""The script of the GPU's records, with a stand-in for what computes: its stages, their order, and going on.

What the stages call is tested where it lies; the script itself has to be run by hand on a GPU.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu_records.sh"
# Notes how it is called and answers as the platform does; what the script itself has calculated goes to a real Python.
STAND_IN = """#!/usr/bin/env bash
[[ $1 == - || $1 == -c ]] && exec "$REAL_PYTHON" "$@"
echo "$*" >> "$CALLS"
[[ $* == *"$FAILS"* ]] && exit 1
case "$*" in
    *job_rate*paper*) echo '{"job": "paper", "device": "GPU X", "batch_size": 32, "images_per_s": 2700}' ;;
    *job_rate*) echo '{"job": "best", "device": "GPU X", "batch_size": 64, "images_per_s": 3200}' ;;
    *drawing_speed*) echo '{"image_steps_per_s": {"fp32": 2500, "auto": 8100}}' ;;
    *prepare*) echo '{}' ;;
    *) echo "{\\"metrics\\": {\\"eval/fd_lite0\\": $FOUND, \\"eval/fd_lite0_floor\\": 11.0}}" ;;
esac
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)

    def script(**variables: str) -> subprocess.CompletedProcess[str]:
        stand_in = {"PYTHON": str(python), "REAL_PYTHON": sys.executable, "CALLS": str(tmp_path / "calls")}
        environment = os.environ | stand_in | {"FAILS": "nothing", "FOUND": "60.5", "BUDGET_S": "3000"} | variables
        command = ["bash", str(SCRIPT), "phantom", str(tmp_path / "state")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return script


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], list[str]]:
    def of_the_last_run() -> list[str]:
        file = tmp_path / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    return of_the_last_run


def test_it_measures_everything_and_a_second_call_nothing_again(run: Run, calls: Callable[[], list[str]]) -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    made = calls()
    stages = [
        "prepare",
        "job_rate.py jobs/best",
        "name=gpu-long",
        "job_rate.py jobs/paper",
        "drawing_speed",
        "gpu-short ",
    ]
    assert [stage in call for stage, call in zip(stages, made, strict=False)] == [True] * len(stages)
    # steps: 387, 40 and, because 60.5 is below 74.8, 20 seconds at 3,200 images/s in batches of 64
    assert [call.split("training.max_steps=")[1].split()[0] for call in made if "max_steps" in call] == [
        "19350", "2000", "1000"
    ]  # fmt: skip
    assert "training.warmup_steps=100 " in made[-1]
    assert all("data.source=phantom" in call for call in made if "drawing" not in call)
    for row in (
        "after 387 s of best (floor 11.0) | 60.5 | 30 |",
        "paper at batch 32 | 2,700 |",
        "auto | 8,100 | 8,000 |",
    ):
        assert row in done.stdout
    again = run()
    assert again.stdout == done.stdout
    assert calls() == []


def test_a_target_that_is_missed_is_tried_with_twice_the_time(run: Run, calls: Callable[[], list[str]]) -> None:
    assert run(FOUND="80").returncode == 0
    assert "training.max_steps=4000 " in calls()[-1]


def test_a_stage_that_fails_is_not_done_and_the_next_call_begins_with_it(
    run: Run, calls: Callable[[], list[str]], tmp_path: Path
) -> None:
    assert run(FAILS="gpu-long").returncode != 0
    assert not (tmp_path / "state" / "long.json").exists()
    assert len(calls()) == 3
    assert run().returncode == 0
    assert "gpu-long" in calls()[0]


def test_a_stage_for_which_there_is_no_time_does_not_begin(
    run: Run, calls: Callable[[], list[str]], tmp_path: Path
) -> None:
    ended = run(BUDGET_S="200")
    assert ended.returncode == 3
    assert "long: needs 487 s" in ended.stderr
    assert len(calls()) == 2
    assert json.loads((tmp_path / "state" / "rate-best.json").read_text())["images_per_s"] == 3200


def test_shellcheck_finds_nothing() -> None:
    subprocess.run([str(Path(sys.executable).with_name("shellcheck")), str(SCRIPT)], check=True)
