"""A whole comparison on the smallest dataset: killed, continued without retraining, drawn again from the store."""

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lwddpm.config import AnyJob
from lwddpm.errors import ConfigError
from lwddpm.jobfile import load_job
from lwddpm.kinds.compare.redraw import redraw
from lwddpm.kinds.jobs import run_job
from lwddpm.report import data as report_data
from lwddpm.tracking.store import connect

from ...processes import LWDDPM, clean_environment, flags, wait_until

pytestmark = pytest.mark.cluster
SMALL = (
    "data.phantom_count=60",
    "data.image_size=16",
    "model.dim=8",
    "model.dim_mults=[1,2]",
    "training.max_steps=8",
    "training.batch_size=8",
    "training.warmup_steps=0",
    "training.log_every_steps=3",
    "training.checkpoint_every_epochs=0.5",
    "training.validation_samples=6",
    "evaluation.metrics=[fd_lite0,coverage_lite0,ssim_nearest]",
    "evaluation.num_samples=6",
    "evaluation.num_reference=24",
    "evaluation.num_inference_steps=4",
    "compare.systems=[ddpm,ddim,gan]",
    "compare.ddim_steps=2",
    "compare.sampling_seeds=[0,1]",
    "compare.ablations={loss: {systems: [ddpm], variants: [{diffusion.loss: smooth_l1}, {diffusion.loss: l1}]}, "
    "attention: null, schedule: null, prediction_type: null}",
    "compare.ablation_overrides={}",
    "compare.proxy.num_samples=4",
    "compare.proxy.num_reference=24",
    "compare.proxy.num_inference_steps=2",
    "compare.inference_steps=[2,4]",
    "compare.snapshot_epochs=[1,2]",
    "compare.sample_sizes=[4]",
    "compare.cost_rounds=1",
    "compare.cost_steps=4",
    "workers.cpus_per_worker=1",
)


@pytest.fixture
def overrides(tiny_data: str, short_grids: None, tmp_path: Path) -> list[str]:
    places = (f"data.path={tiny_data}", "output=runs", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db")
    return [*SMALL, *places]


def _killed_in_the_second_training(overrides: list[str], folder: Path) -> None:
    """Start the command line and kill it, as a full machine does."""
    command = [LWDDPM, "run", "compare_demo", *flags(overrides)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=clean_environment(), stderr=log)
        try:
            started = "runs/compare-demo-gan-*/run.json"
            wait_until(lambda: list(folder.glob(started)), 280, process, folder / "log")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _delete_artifacts(folder: Path, *names: str) -> None:
    """Remove what MLflow keeps of all runs, as a careless clean-up of its store does."""
    deleted = [path for name in names for path in folder.glob(f"mlruns/*/*/artifacts/{name}")]
    assert deleted
    for path in deleted:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _trained(folder: Path) -> dict[str, Any]:
    (result,) = folder.glob("runs/compare-demo-ddpm-????????/result.json")
    weights = result.with_name("model") / "model.safetensors"
    return {"result": json.loads(result.read_text()), "written": weights.stat().st_mtime_ns}


def _assert_other_settings_have_runs_of_their_own(job: AnyJob, other: AnyJob, result: dict[str, Any]) -> None:
    """And whoever comes back to the first ones finds them, numbers and versions as they were."""
    client = connect(str(job.tracking.uri))
    changed, again = run_job(other), run_job(job)
    assert again == result
    own, first = (client.get_run(each["run_id"]) for each in (changed, result))
    assert own.data.tags["mlflow.parentRunId"] == first.info.run_id
    assert [run.data.params["evaluation.num_reference"] for run in (own, first)] == ["23", "24"]
    assert {run.info.status for run in (own, first)} == {"FINISHED"}
    table = [{name for name in run.data.metrics if not name.startswith("system/")} for run in (own, first)]
    assert table[0] == table[1] != set()


def _assert_starts_and_baseline(
    report: report_data.ComparisonReport, result: dict[str, Any], logged: dict[str, float]
) -> None:
    """One training, sampled from either start; and the Gaussian, by the same protocol without a network."""
    assert {s.name: (s.start, s.network_calls) for s in report.systems} == {
        "ddpm": ("gaussian", 4),
        "ddim": ("gaussian", 2),
        "gan": (None, 1),
    }
    assert [(s.name, s.start, s.network_calls) for s in report.other_starts] == [
        ("ddpm", "noise", 4),
        ("ddim", "noise", 2),
    ]
    first = {(m.system, m.group): m for m in report.measurements if m.sampling_seed == 0 and m.label != "curves"}
    for system in ("ddpm", "ddim"):
        own, other = first[system, "system"], first[system, "start"]
        assert own.values["fd_lite0"] != other.values["fd_lite0"], "both starts were drawn"
        assert own.floors == other.floors
    gaussian = first["gaussian", "baseline"]
    assert (gaussian.n, gaussian.num_reference, gaussian.sampler) == (6, 24, None)
    assert gaussian.values.keys() == first["gan", "system"].values.keys()
    assert gaussian.floors == first["gan", "system"].floors
    (curves,) = (m for m in report.group("baseline") if m.label == "curves")
    assert curves.n == report.group("epochs")[0].n == 4
    costs = {cost.system: cost for cost in report.costs}
    assert costs["ddim/noise"].images_per_s == costs["ddpm"].images_per_s
    assert costs["ddpm/noise"].seconds_per_64 != costs["ddpm"].seconds_per_64
    assert (costs["gaussian"].images_per_s, len(costs["gaussian"].seconds_per_64)) == ((), 1)
    assert result["baseline"].keys() == {"ddpm", "ddpm/noise", "ddim", "ddim/noise", "gan"}
    assert {"gaussian/fd_lite0", "ddpm/noise/fd_lite0", "ddpm/coverage_lite0"} <= logged.keys()


@pytest.mark.timeout(600)
def test_killed_and_continued_it_retrains_nothing_and_ends_with_a_report(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _killed_in_the_second_training(overrides, tmp_path)
    before = _trained(tmp_path)
    _delete_artifacts(tmp_path, "evaluation", "samples")
    monkeypatch.chdir(tmp_path)
    job = load_job("compare_demo", overrides)
    result = run_job(job)
    assert _trained(tmp_path) == before, "a finished system was trained again"

    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    parent = client.get_run(result["run_id"])
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    children = {run.info.run_name: run for run in client.search_runs([parent.info.experiment_id], query)}
    assert children.keys() == {f"compare-demo-{name}" for name in ("ddpm", "ddim", "gan", "ddpm-loss-l1")}
    assert {run.info.status for run in (parent, *children.values())} == {"FINISHED"}
    assert children["compare-demo-ddpm"].info.run_id == before["result"]["run_id"]
    logged = [m.step for m in client.get_metric_history(before["result"]["run_id"], "train/loss")]
    assert logged == list(range(1, 9))
    assert {"ddpm/fd_lite0", "ddim/seconds_per_64", "gan/parameters"} <= parent.data.metrics.keys()
    names = {model.name for model in client.search_registered_models()}
    assert names == {"compare-demo-ddpm", "compare-demo-gan"}

    folder = Path(result["report"]).parent
    report = report_data.load(folder).report
    assert {s.name for s in report.systems} == {"ddpm", "ddim", "gan"}
    measured = [(m.group, m.system, m.label, m.sampling_seed, m.x) for m in report.measurements]
    assert len(set(measured)) == len(measured)
    groups = ("system", "start", "baseline", "loss", "steps", "epochs")
    counts = {group: len(report.group(group)) for group in groups}
    assert counts == {
        "system": 3 * 2,
        "start": 2 * 2,
        "baseline": 2 + 1,
        "loss": 2 * 2,
        "steps": 3 * 2,
        "epochs": 3 * 2,
    }
    _assert_starts_and_baseline(report, result, parent.data.metrics)
    costs = {cost.system: cost for cost in report.costs}
    assert costs["ddim"].images_per_s == costs["ddpm"].images_per_s
    assert all(min(cost.peak_memory_mib + cost.seconds_per_64) > 0 for cost in costs.values())

    # the same command finds everything done; the store alone is enough to draw the report again
    assert run_job(job) == result
    elsewhere = [*overrides, "workers.max_failures=1", "tracking.experiment=elsewhere", "training.keep_checkpoints=9"]
    assert run_job(load_job("compare_demo", elsewhere)) == result
    assert {len(client.search_model_versions(f"name='{name}'")) for name in names} == {1}
    _assert_other_settings_have_runs_of_their_own(
        job, load_job("compare_demo", [*overrides, "evaluation.num_reference=23"]), result
    )
    again = redraw(result["run_id"], str(tmp_path / "again"), str(job.tracking.uri))
    assert again["statements"] == result["statements"]
    assert again["measured_on"] == result["measured_on"]
    assert again["baseline"] == result["baseline"]
    assert result["measured_on"]["ddim_price"] == "2 samplings of 1 training, n = 6 slices"
    for name in ("report.md", "report.html"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    # nothing of it is read back from MLflow: without artifacts and metrics the command ends with the same report
    report_files = {name: (folder / name).read_bytes() for name in ("report.json", "curves.parquet", "report.html")}
    _delete_artifacts(tmp_path, "*")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("DELETE FROM metrics")
        database.execute("DELETE FROM latest_metrics")
    place = folder.parent
    (place / "result.json").unlink()
    (place / "cache").rename(place / "bench")  # its name in an earlier version
    shutil.rmtree(folder)
    assert run_job(job) == result
    assert {name: (folder / name).read_bytes() for name in report_files} == report_files
    with pytest.raises(ConfigError, match="no comparison of this folder, run id or job name"):
        redraw("nothing", tracking_uri=str(job.tracking.uri))
