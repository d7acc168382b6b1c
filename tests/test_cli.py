"""The command line as a process: exit codes, clean JSON on stdout, signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lwddpm.tracking.store import connect

LWDDPM = str(Path(sys.executable).with_name("lwddpm"))


def _environment() -> dict[str, str]:
    """Without what tests in this process have set: MLflow exports its tracking URI."""
    return {key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")}


def _call(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [LWDDPM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=_environment(), timeout=200)


@pytest.fixture
def tiny(tiny_data: str, tiny_overrides: tuple[str, ...], empty_store: Path, tmp_path: Path) -> list[str]:
    """Flags that make the demo the smallest job that has every part; the MLflow store is there already."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return [part for override in (*tiny_overrides, f"data.path={tiny_data}") for part in ("--set", override)]


@pytest.mark.parametrize("verb", [[], ["run"], ["sample"], ["models"], ["models", "promote"], ["doctor"]])
def test_every_verb_has_help(verb: list[str], tmp_path: Path) -> None:
    result = _call(*verb, "--help", folder=tmp_path)
    assert result.returncode == 0
    assert "Usage" in result.stdout


def test_a_dry_run_describes_and_starts_nothing(tmp_path: Path) -> None:
    result = _call("run", "paper", "--set", "data.source=phantom", "--dry-run", "--json", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["parameters"] == 13_341_041
    assert plan["config"]["training"]["lr"] == 5e-4
    assert plan["steps"] == 250 * (800 // 32)
    assert plan["memory_mib_per_worker"] > 13_341_041 * 20 / 2**20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "nothing"], "no such job file"),
        (["run", "demo", "--set", "training.bach_size=2"], "did you mean training.batch_size"),
        (["run", "kaggle_small", "--set", "data.source=/no/such/folder"], "data.source"),
        (["run", "demo", "--set", "tracking.uri=http://127.0.0.1:1"], "does not answer"),
        (["run", "demo", "--address", "127.0.0.1:1"], "127.0.0.1:1"),
        (["sample", "models:/none@candidate"], "no such model"),
        (["sample", "models:/none@candidate", "--sampler", "euler"], "'ddpm', 'ddim'"),
        (["sample", "models:/none@candidate", "--count", "0"], "count"),
        (["run", "sample", "--dry-run", "--set", "model_uri=models:/none"], "must be models:/NAME@ALIAS"),
        (["models", "show", "none"], "must be models:/NAME@ALIAS"),
        (["run", "demo", "--no-such-flag"], "No such option"),
    ],
)
def test_wrong_input_is_exit_2_with_one_clear_message(arguments: list[str], expected: str, tmp_path: Path) -> None:
    result = _call(*arguments, folder=tmp_path)
    assert result.returncode == 2, result.stderr
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists()


def test_errors_are_json_too(tmp_path: Path) -> None:
    result = _call("run", "nothing", "--json", folder=tmp_path)
    assert result.returncode == 2
    assert json.loads(result.stdout)["exit_code"] == 2


@pytest.mark.cluster
def test_a_job_prints_one_json_object_and_the_registry_shows_the_model(tiny: list[str], tmp_path: Path) -> None:
    result = _call("run", "demo", "--json", *tiny, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert "training" in result.stderr
    (listed,) = json.loads(_call("models", "list", "--json", folder=tmp_path).stdout)
    assert (listed["name"], listed["aliases"]) == ("lw-ddpm-demo", ["candidate"])
    uri = summary["model"]["uri"]
    promoted = _call("models", "promote", uri, "--reason", "test", "--json", folder=tmp_path)
    assert json.loads(promoted.stdout)["to"] == 1
    shown = _call("models", "show", "models:/lw-ddpm-demo@champion", folder=tmp_path)
    assert "Not for diagnosis" in shown.stdout
    drawn = _call("sample", uri, "--count", "3", "--steps", "2", "--out", "drawn", "--json", folder=tmp_path)
    assert json.loads(drawn.stdout)["count"] == 3
    names = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert names == {"0.png", "1.png", "2.png", "grid.png", "samples.json"}


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("number", "workers", "steps"),
    [(signal.SIGINT, 1, 300), (signal.SIGTERM, 1, 300), (signal.SIGTERM, 2, 200)],
)
def test_stopped_it_leaves_a_killed_run_and_a_checkpoint_and_continues(
    number: signal.Signals, workers: int, steps: int, tiny: list[str], tmp_path: Path
) -> None:
    overrides = [
        f"training.max_steps={steps}",
        "training.checkpoint_every_epochs=1000",
        "evaluation=null",
        "registry=null",
    ]
    overrides += [
        f"workers.count={workers}",
        "data.path=null",
    ]  # preparing starts Ray, whose signal handler is not ours
    arguments = ["run", "demo", *tiny, *(part for override in overrides for part in ("--set", override))]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([LWDDPM, *arguments], cwd=tmp_path, stderr=log, env=_environment())
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        _wait_until(lambda: bool(list(tmp_path.glob("runs/*/outbox/*.json"))))  # into the training
        process.send_signal(number)
        assert process.wait(timeout=60) == 130, (tmp_path / "log").read_text()
    (folder,) = tmp_path.glob("runs/*")
    run_id = json.loads((folder / "run.json").read_text())["run_id"]
    assert connect(uri).get_run(run_id).info.status == "KILLED"
    (checkpoint,) = folder.glob("checkpoints/step_*")
    reached = json.loads((checkpoint / "state.json").read_text())["step"]
    assert 0 < reached < steps
    result = _call(*arguments, "--json", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["run_id"] == run_id
    logged = [metric.step for metric in connect(uri).get_metric_history(run_id, "train/loss")]
    assert sorted(logged) == list(range(1, steps + 1))


def _wait_until(condition: object, timeout_s: float = 150) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.cluster
def test_the_doctor_tells_what_works(tmp_path: Path) -> None:
    result = _call("doctor", "--json", folder=tmp_path)
    assert result.returncode == 0, result.stdout
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert checks["Ray"]["status"] == checks["MLflow"]["status"] == checks["weights for fd_lite0"]["status"] == "ok"
    assert all(check["remedy"] for check in checks.values() if check["status"] != "ok")
