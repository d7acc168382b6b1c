"""The command line as a process: exit codes, clean JSON on stdout, signals."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lwddpm.cli import app
from lwddpm.tracking.store import connect

from .processes import LWDDPM, clean_environment, flags, lwddpm, wait_until


@pytest.fixture
def tiny(tiny_data: str, tiny_overrides: tuple[str, ...], store: str) -> list[str]:
    """Flags that make the demo the smallest job that has every part; the MLflow store is there already."""
    return flags([*tiny_overrides, f"data.path={tiny_data}"])


@pytest.mark.parametrize("verb", [[], ["run"], ["sample"], ["models"], ["models", "promote"], ["doctor"]])
def test_every_verb_has_help(verb: list[str], tmp_path: Path) -> None:
    result = lwddpm(*verb, "--help", folder=tmp_path)
    assert result.returncode == 0
    assert "Usage" in result.stdout


def test_a_dry_run_describes_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process; as one of its own it is run by the test of the wheel."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = CliRunner().invoke(app, ["run", "paper", "--set", "data.source=phantom", "--dry-run", "--json"])
    assert result.exit_code == 0, result.stderr
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
def test_wrong_input_is_exit_2_with_one_clear_message(
    arguments: list[str], expected: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: what is imported once is most of what these verbs do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.stderr
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists()


def test_errors_are_json_too(tmp_path: Path) -> None:
    result = lwddpm("run", "nothing", "--json", folder=tmp_path)
    assert result.returncode == 2
    assert json.loads(result.stdout)["exit_code"] == 2


@pytest.mark.cluster
def test_a_job_prints_one_json_object_and_the_registry_shows_the_model(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = lwddpm("run", "demo", "--json", *tiny, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert "training" in result.stderr
    assert summary["n"] == {"eval/ssim_pairs": 6, "eval/ssim_reconstruction": 6, "eval/copied_share": 6}
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # of tests before
    (listed,) = json.loads(lwddpm("models", "list", "--json", folder=tmp_path).stdout)
    assert (listed["name"], listed["aliases"]) == ("lw-ddpm-demo", ["candidate"])
    assert listed["n"] == summary["n"]
    uri = summary["model"]["uri"]
    monkeypatch.chdir(tmp_path)
    promoted = CliRunner().invoke(app, ["models", "promote", uri, "--reason", "test", "--json"])
    assert json.loads(promoted.stdout)["to"] == 1
    shown = CliRunner().invoke(app, ["models", "show", "models:/lw-ddpm-demo@champion"])
    assert "Not for diagnosis" in shown.stdout
    drawn = lwddpm("sample", uri, "--count", "3", "--steps", "2", "--out", "drawn", "--json", folder=tmp_path)
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
    arguments = ["run", "demo", *tiny, *flags(overrides)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([LWDDPM, *arguments], cwd=tmp_path, stderr=log, env=clean_environment())
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        wait_until(lambda: list(tmp_path.glob("runs/*/outbox/*.json")), process=process)  # into the training
        process.send_signal(number)
        assert process.wait(timeout=60) == 130, (tmp_path / "log").read_text()
    (folder,) = tmp_path.glob("runs/*")
    run_id = json.loads((folder / "run.json").read_text())["run_id"]
    assert connect(uri).get_run(run_id).info.status == "KILLED"
    (checkpoint,) = folder.glob("checkpoints/step_*")
    reached = json.loads((checkpoint / "state.json").read_text())["step"]
    assert 0 < reached < steps
    result = lwddpm(*arguments, "--json", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["run_id"] == run_id
    logged = [metric.step for metric in connect(uri).get_metric_history(run_id, "train/loss")]
    assert sorted(logged) == list(range(1, steps + 1))


@pytest.mark.cluster
def test_the_doctor_tells_what_works(tmp_path: Path) -> None:
    result = lwddpm("doctor", "--json", folder=tmp_path)
    assert result.returncode == 0, result.stdout
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert checks["Ray"]["status"] == checks["MLflow"]["status"] == checks["weights for fd_lite0"]["status"] == "ok"
    assert all(check["remedy"] for check in checks.values() if check["status"] != "ok")
