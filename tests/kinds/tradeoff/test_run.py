"""A trade-off from end to end: killed, continued, kept as presets, drawn with."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from typer.testing import CliRunner

from lwddpm.cli import app
from lwddpm.cluster import generate
from lwddpm.config import RegistryConfig, TradeoffJob, TrainJob
from lwddpm.data.store import open_dataset
from lwddpm.errors import DataError
from lwddpm.evaluation.tradeoff import Tradeoff
from lwddpm.jobfile import load_job
from lwddpm.kinds.compare import kept
from lwddpm.kinds.dry_run import plan
from lwddpm.kinds.jobs import run_job
from lwddpm.tracking import registration, registry
from lwddpm.tracking.runs import tracked_run


@pytest.fixture
def overrides(tiny_data: str, tmp_path: Path, store: str) -> list[str]:
    places = [f"data.path={tiny_data}", f"output={tmp_path / 'runs'}", f"tracking.uri={store}"]
    small = ["data.phantom_count=60", "data.image_size=16", "tradeoff.num_samples=8", "tradeoff.num_reference=20"]
    few = ["tradeoff.steps=[2]", "tradeoff.samplers=[]", "tradeoff.eta=[1]", "tradeoff.sampling_seeds=[0,1]"]
    return [*places, *small, *few, "workers.cpus_per_worker=1"]


@pytest.fixture
def registered(model_dir: Path, store: str, tiny_job: Callable[..., TrainJob]) -> str:
    with tracked_run(tiny_job(), store, None, "digest") as run:
        registration.register(run, model_dir, RegistryConfig(name="tiny"), {}, {}, 8, "# card\n\n## Limits\n")
    return "models:/tiny@candidate"


def test_a_killed_one_goes_on_and_its_presets_are_drawn_with(
    registered: str, overrides: list[str], store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = load_job("tradeoff", [*overrides, f"model_uri={registered}"])
    drawn: list[Any] = []
    real = generate.generate_images

    def counted(model_dir: Path, sampling: Any, count: int, *rest: Any) -> Any:
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append((sampling.num_inference_steps, sampling.eta, sampling.seed))
        return real(model_dir, sampling, count, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(kept, "generate_images", counted)
        with pytest.raises(KeyboardInterrupt):
            run_job(job)
    assert len(drawn) == 3
    rest: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(kept, "generate_images", lambda *a: (rest.append(a[1].seed), real(*a))[1])
        result = run_job(job)
    labels = ["dpmsolver++, 20 steps", "2 steps", "start noise", "ddim, eta 1"]
    assert [way["label"] for way in result["ways"]] == [*labels, "real held-out slices"]
    assert len(drawn) + len(rest) == 2 * len(labels)  # what was drawn before is not drawn again
    assert run_job(job) == result
    run = mlflow.get_run(result["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["balanced/fd_lite0"] == pytest.approx(
        result["presets"]["balanced"]["figures"]["fd_lite0"]["value"]
    )

    folder = tmp_path / "runs" / "tradeoff" / "tradeoff"
    assert {path.name for path in folder.iterdir()} == {"figures", "tradeoff.csv", "tradeoff.html", "tradeoff.json"}
    content = json.loads((folder / "tradeoff.json").read_text())
    assert set(content.pop("recommended")) == {"realistic", "balanced", "diverse"}
    assert [way.label for way in Tradeoff.model_validate(content).ways] == labels
    with (folder / "tradeoff.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["way"] for row in rows] == [*labels, "real held-out slices"]
    assert float(rows[0]["fd_lite0"]) == pytest.approx(result["ways"][0]["fd_lite0"], rel=1e-5)

    version = registry.find_version(registered)
    assert set(version.presets) == {"realistic", "balanced", "diverse"}
    assert "| `balanced` |" in version.card
    arguments = ["sample", registered, "--preset", "balanced", "--count", "2", "--tracking-uri", store]
    assert CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")]).exit_code == 0
    about = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert about["preset"] == "balanced"
    assert about["network_calls"] == version.presets["balanced"]["network_calls"]
    assert about["sampling"] | version.presets["balanced"]["sampling"] == about["sampling"]


def test_a_way_that_returns_training_slices_becomes_no_preset_although_it_scores_best(
    registered: str, overrides: list[str], tiny_data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = np.array(open_dataset(tiny_data).images("train"))

    def drawn(model_dir: Path, sampling: Any, count: int, *rest: Any) -> np.ndarray:
        if sampling.num_inference_steps == 2:
            return train[np.arange(count) + sampling.seed]
        return np.random.default_rng(sampling.seed).integers(256, size=(count, *train.shape[1:]), dtype=np.uint8)

    monkeypatch.setattr(kept, "generate_images", drawn)
    result = run_job(load_job("tradeoff", [*overrides, f"model_uri={registered}"]))
    ways = {way["label"]: way for way in result["ways"]}
    assert [label for label, way in ways.items() if way["copies"]] == ["2 steps"]
    assert min(ways, key=lambda label: ways[label]["fd_lite0"]) in ("2 steps", "real held-out slices")
    assert ways["2 steps"]["recommended"] == []
    assert set(result["presets"]) == {"realistic", "balanced", "diverse"}
    assert all(preset["sampling"]["num_inference_steps"] != 2 for preset in result["presets"].values())


def test_another_dataset_is_refused_and_a_dry_run_tells_the_ways(
    model_dir: Path, overrides: list[str], tmp_path: Path
) -> None:
    job = load_job("tradeoff", [*overrides, f"model_uri={model_dir}"])
    assert isinstance(job, TradeoffJob)
    planned = plan(job)["tradeoff"]
    assert planned["ways"] == {"dpmsolver++, 20 steps": 20, "2 steps": 2, "start noise": 20, "ddim, eta 1": 20}
    assert planned["network_calls"] == 62 * 8 * 2
    assert plan(load_job("tradeoff", overrides))["tradeoff"] is None
    config = json.loads((model_dir / "config.json").read_text())
    (model_dir / "config.json").write_text(json.dumps(config | {"dataset_version": "another"}))
    with pytest.raises(DataError, match="must be the dataset that the model was trained on, version another"):
        run_job(job)
