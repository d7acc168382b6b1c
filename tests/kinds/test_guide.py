"""A guide from the job file to the registry and back: kept, measured, drawn with, and refused where there is none."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lwddpm.cli.app import app
from lwddpm.cluster.generate import generate_images
from lwddpm.cluster.session import Session
from lwddpm.config import EvaluationConfig, RegistryConfig, SamplingConfig, SearchJob, TrainJob, WorkersConfig
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, DataError
from lwddpm.jobfile import load_job, validate_job
from lwddpm.kinds.compare.plan import check_compare, protocol_of, unguided, without_network
from lwddpm.kinds.evaluate import Evaluation
from lwddpm.kinds.guide import check_guide_of_trials
from lwddpm.kinds.jobs import run_job
from lwddpm.kinds.saved_model import calls_of, fitting
from lwddpm.kinds.train import check_dataset
from lwddpm.search.objectives import measure
from lwddpm.tracking import registration, registry
from lwddpm.tracking.model_files import fetch_model
from lwddpm.tracking.rundir import run_folder
from lwddpm.tracking.runs import tracked_run
from lwddpm.training.stored_guide import has_guide, write_guide
from lwddpm.training.stored_model import load_guide, read_saved_model, save_model

Build = Callable[..., TrainJob]
GUIDED = ("training.guide_epoch=0.5", "evaluation.guidance=2")


@pytest.fixture
def guided_dir(tiny_job: Build, model_dir: Path, tmp_path: Path) -> Path:
    """The untrained network of `model_dir`, with another one as its guide."""
    from lwddpm.models.build import build_model

    torch.manual_seed(1)
    saved = read_saved_model(model_dir).model_copy(update={"step": 3, "epoch": 0.5})
    network = build_model(tiny_job().model)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    write_guide(model_dir, save_model(tmp_path / "weaker", network, saved))
    return model_dir


def test_what_draws_in_chunks_draws_with_the_guide(guided_dir: Path) -> None:
    plain, guided = SamplingConfig(num_inference_steps=3), SamplingConfig(num_inference_steps=3, guidance=2)
    with Session(WorkersConfig()) as session:
        one, two = (generate_images(guided_dir, sampling, 2, session) for sampling in (plain, guided))
    assert (one != two).any()
    assert (calls_of(plain, guided_dir), calls_of(guided, guided_dir)) == (3, 6)


def test_a_registered_version_carries_its_guide_and_serves_with_it(
    tiny_job: Build, store: str, guided_dir: Path, tmp_path: Path
) -> None:
    import mlflow
    import pandas as pd

    with tracked_run(tiny_job(), store, None, "digest") as run:
        registration.register(run, guided_dir, RegistryConfig(name="guided"), {}, {}, 8, "card")
    for folder in (fetch_model("models:/guided/1"), fetch_model("models:/guided/1", tmp_path / "k")):
        fetched, original = load_guide(folder), load_guide(guided_dir)
        assert fetched is not None
        assert original is not None
        assert all(torch.equal(a, b) for a, b in zip(fetched.parameters(), original.parameters(), strict=True))
    served = mlflow.pyfunc.load_model("models:/guided/1")
    row = {"count": 2, "seed": 3, "steps": 4}
    plain, guided, far = (
        served.predict(pd.DataFrame([row | more]))
        for more in (
            {},
            {"guidance": 2.0, "guidance_low": 0.0, "guidance_high": 3.0},
            {"guidance": 2.0, "guidance_low": 1e6, "guidance_high": 1e7},
        )
    )
    settings = SamplingConfig(
        sampler="dpmsolver++", num_inference_steps=4, seed=3, guidance=2, guidance_interval=(0, 3)
    )
    with Session(WorkersConfig()) as session:
        assert np.array_equal(guided, generate_images(guided_dir, settings, 2, session))
    assert np.array_equal(plain, far)
    assert (plain != guided).any()
    with pytest.raises(ValueError, match="given together"):
        served.predict(pd.DataFrame([row | {"guidance": 2.0, "guidance_low": 0.1}]))


def test_a_model_without_one_is_refused_guidance_everywhere(
    tiny_job: Build, store: str, model_dir: Path, tmp_path: Path
) -> None:
    import mlflow
    import pandas as pd

    message = "sampling.guidance: takes a model with a guide, got 1.5 .*training.guide_epoch"
    with pytest.raises(ConfigError, match=message):
        fitting(SamplingConfig(guidance=1.5), read_saved_model(model_dir), model_dir, "sampling")
    arguments = ["sample", str(model_dir), "--guidance", "1.5", "--tracking-uri", store, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "sampling.guidance" in result.output
    assert not (tmp_path / "out").exists()
    with tracked_run(tiny_job(), store, None, "digest") as run:
        registration.register(run, model_dir, RegistryConfig(name="alone"), {}, {}, 8, "card")
    with pytest.raises(ValueError, match="stored without, got 2"):
        mlflow.pyfunc.load_model("models:/alone/1").predict(pd.DataFrame([{"guidance": 2.0}]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("evaluation.guidance=1.5",),
            "evaluation.guidance: takes a model with a guide, and training.guide_epoch is null",
        ),
        (("evaluation.guidance=0.5",), "evaluation.guidance: .*greater than or equal to 1"),
        (("evaluation.guidance_interval=[2, 0.5]",), "guidance_interval: the first noise level must be below"),
        (("training.guide_epoch=0",), "training.guide_epoch: .*greater than 0"),
        (
            ("training.max_steps=null", "training.epochs=4", "training.guide_epoch=4"),
            "training.guide_epoch: must be below training.epochs = 4, got 4",
        ),
    ],
)
def test_a_job_that_cannot_have_it_is_refused(tiny_job: Build, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_job(*overrides)


def test_a_gan_knows_no_guidance(tiny_gan: Build) -> None:
    for override in ("training.guide_epoch=1", "evaluation.guidance=2", "evaluation.guidance_interval=[0.1, 1]"):
        with pytest.raises(ConfigError, match=f"has no use for .*{override.partition('=')[0]}"):
            tiny_gan("model.family=gan", override)
    assert tiny_gan("model.family=gan", "evaluation.guidance=1").evaluation == tiny_gan("model.family=gan").evaluation


def test_unchanged_jobs_keep_their_digests(tiny_job: Build) -> None:
    job = tiny_job()
    assert "guid" not in json.dumps(job.model_dump(mode="json"))
    assert tiny_job("evaluation.guidance=1", "training.guide_epoch=null").result_digest() == job.result_digest()


def test_a_guide_from_after_the_end_is_refused_before_training(tiny_job: Build, tiny_dataset: Dataset) -> None:
    check_dataset(tiny_job("training.guide_epoch=1"), tiny_dataset)
    with pytest.raises(DataError, match="must lie before the end of the training, which has 8 steps of 6 an epoch"):
        check_dataset(tiny_job("training.guide_epoch=1.5"), tiny_dataset)


def _search(search_overrides: Callable[[str], list[str]], *overrides: str) -> SearchJob:
    job = load_job("search_demo", [*search_overrides("training.lr: {float: {low: 1.0e-4, high: 1.0e-3}}"), *overrides])
    assert isinstance(job, SearchJob)
    return job


def test_trials_are_measured_after_their_guide(
    search_overrides: Callable[[str], list[str]], tiny_dataset: Dataset
) -> None:
    with pytest.raises(ConfigError, match=r"search.proxy.guidance: takes a model with a guide"):
        _search(search_overrides, "search.proxy.guidance=2")
    job = _search(search_overrides, "search.proxy.guidance=2", "training.guide_epoch=0.5")
    check_guide_of_trials(job, tiny_dataset, first_rung=4)
    assert job.measured_settings()["guide_epoch"] == 0.5  # another one is another study
    assert "guide_epoch" not in _search(search_overrides, "training.guide_epoch=0.5").measured_settings()
    with pytest.raises(DataError, match=r"from step 3 on, .*guide_epoch = 0.5, step 3"):
        check_guide_of_trials(job, tiny_dataset, first_rung=3)


def test_a_trial_is_measured_with_its_guide(guided_dir: Path, tiny_dataset: Dataset) -> None:
    def value(**settings: object) -> float:
        proxy = EvaluationConfig(num_samples=6, num_inference_steps=3, **settings)
        names = ("eval/ssim_pairs",)
        measured = measure(names, guided_dir, tiny_dataset, proxy, torch.device("cpu"), lambda epoch, images: None)
        return measured["eval/ssim_pairs"]

    assert value(guidance=3) != value()


def test_a_comparison_guides_its_diffusion_systems_and_nothing_else() -> None:
    overrides = {"name": "guided", "training.guide_epoch": 20, "evaluation.guidance": 1.5}
    job = load_job("paper_compare", [f"{key}={value}" for key, value in overrides.items()])
    assert job.kind == "compare"
    check_compare(job)
    assert protocol_of(job, "lw_ddpm", 0).guidance == 1.5
    assert protocol_of(job, "gan", 0).guidance == 1
    assert without_network(job.protocol).guidance == unguided(job.protocol).guidance == 1
    values = job.model_dump(mode="json")
    values["training"] |= {"guide_epoch": None}
    values["evaluation"] |= {"guidance": 1}
    values["compare"]["proxy"] = None
    values["compare"]["overrides"] = {"lw_ddpm": {"evaluation.guidance": 1.5}}
    with pytest.raises(ConfigError, match=r"compare.overrides.lw_ddpm: evaluation.guidance: takes a model"):
        check_compare(validate_job(values, "values"))


@pytest.mark.cluster
def test_a_guided_job_ends_measured_both_ways_and_registered_with_its_guide(tiny_job: Build, tmp_path: Path) -> None:
    job = tiny_job(*GUIDED)
    result = run_job(job)
    evaluation = Evaluation.load(run_folder(job))
    assert evaluation is not None
    by_name = {record.name: record for record in evaluation.result.records}
    drawn = by_name["ssim_pairs"]
    assert (drawn.guidance, drawn.num_inference_steps, drawn.network_calls) == (2, 3, 6)
    (plain,) = evaluation.result.unguided
    assert (plain.name, plain.guidance, plain.num_inference_steps, plain.network_calls) == ("ssim_pairs", 1, 6, 6)
    assert plain.value != drawn.value
    assert by_name["ssim_reconstruction"].guidance == 1
    assert result["metrics"]["eval/ssim_pairs_unguided"] == plain.value
    version = registry.find_version("models:/lw-ddpm-demo@candidate")
    assert "its guide in `guide/` is the network after 0.5 epochs" in version.card
    assert "guidance 2, 6 calls" in version.card
    assert version.metrics["eval/ssim_pairs_unguided"] == pytest.approx(plain.value, rel=1e-5)
    out = tmp_path / "out"
    model = ["models:/lw-ddpm-demo@candidate", "--tracking-uri", str(job.tracking.uri), "--out", str(out)]
    options = ["--count", "6", "--steps", "3", "--guidance", "2"]
    assert CliRunner().invoke(app, ["sample", *model, *options]).exit_code == 0
    about = json.loads((out / "samples.json").read_text())
    assert about["network_calls"] == 6
    assert about["sampling"]["guidance"] == 2
    between = [*options, "--guidance-interval", "1000", "2000"]  # above all steps
    assert CliRunner().invoke(app, ["sample", *model, *between]).exit_code == 0
    assert json.loads((out / "samples.json").read_text())["network_calls"] == 3


@pytest.mark.cluster
def test_a_finished_training_gets_a_guide_from_a_snapshot_that_it_has(tiny_job: Build) -> None:
    first = run_job(tiny_job())
    folder = run_folder(tiny_job())
    weights = (folder / "model" / "model.safetensors").stat().st_mtime_ns
    assert not has_guide(folder / "model")
    with pytest.raises(ConfigError, match=r"must be an epoch that has a snapshot, got 0.5, .*take 1, leave it out"):
        run_job(tiny_job(*GUIDED))
    job = tiny_job("training.guide_epoch=1", "evaluation.guidance=2")
    second = run_job(job)
    assert run_folder(job) == folder
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == weights  # nothing is trained again
    assert read_saved_model(folder / "model" / "guide").step == 6
    assert (first["model"]["version"], second["model"]["version"]) == (1, 2)
    assert not has_guide(fetch_model("models:/lw-ddpm-demo/1"))
    assert has_guide(fetch_model("models:/lw-ddpm-demo/2"))
    assert run_job(job) == json.loads(json.dumps(second))
