"""A preset on its way: from a training's evaluation into the registry, onto the command line and into a server."""

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lwddpm.cli import app
from lwddpm.cluster.generate import generate_images
from lwddpm.cluster.session import Session
from lwddpm.config import EVALUATED, EvaluateJob, RegistryConfig, SamplingConfig, TrainJob, WorkersConfig
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.evaluation.protocol import evaluate
from lwddpm.jobfile import load_job
from lwddpm.kinds.evaluate import run_evaluation
from lwddpm.kinds.presets import keep_evaluated
from lwddpm.tracking import model_files, registration, registry, version_presets
from lwddpm.tracking.card import with_presets
from lwddpm.tracking.runs import tracked_run
from lwddpm.training.stored_presets import Figure, Preset, Presets, read_presets, write_presets

Build = Callable[..., TrainJob]
EVALUATION = SamplingConfig(sampler="ddim", num_inference_steps=4, eta=0.5)
FD = Figure(value=40.0, floor=16.0, n=300)
BALANCED = Preset.of(SamplingConfig(sampler="dpmsolver++", num_inference_steps=2), 2, {"fd_lite0": FD}, "")


@pytest.fixture
def with_evaluated(model_dir: Path, tmp_path: Path, tiny_dataset: Dataset, tiny_job: Build) -> Path:
    """A model folder as a training leaves it, evaluated."""
    import shutil

    folder = Path(shutil.copytree(model_dir, tmp_path / "evaluated" / "epoch_1"))
    config = tiny_job().evaluation
    assert config is not None
    config = config.model_copy(update={name: getattr(EVALUATION, name) for name in ("num_inference_steps", "eta")})
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16), dtype=np.uint8)
    keep_evaluated(folder, evaluate(images, tiny_dataset, config), 4)
    return folder


def _sampled(model: str, store: str, out: Path, *options: str) -> tuple[dict[str, object], str]:
    arguments = ["sample", model, "--count", "3", "--out", str(out), "--tracking-uri", store, *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return json.loads((out / "samples.json").read_text()), result.output


def test_a_folder_is_drawn_as_it_was_evaluated(with_evaluated: Path, store: str, tmp_path: Path) -> None:
    about, said = _sampled(str(with_evaluated), store, tmp_path / "out")
    drawn = SamplingConfig.model_validate(about["sampling"])
    assert (drawn.num_inference_steps, drawn.eta, about["preset"], about["network_calls"]) == (4, 0.5, EVALUATED, 4)
    assert "drawn with ddim, 4 steps, eta 0.5 (preset evaluated)" in " ".join(said.split())
    about, said = _sampled(str(with_evaluated), store, tmp_path / "out", "--steps", "2")
    drawn = SamplingConfig.model_validate(about["sampling"])
    assert (drawn.num_inference_steps, drawn.eta) == (2, 0.5)
    assert "(preset evaluated, but num_inference_steps as given)" in " ".join(said.split())
    about, _ = _sampled(str(with_evaluated), store, tmp_path / "out", "--preset", "plain", "--steps", "3")
    assert SamplingConfig.model_validate(about["sampling"]) == SamplingConfig(
        num_inference_steps=3, precision=about["sampling"]["precision"]
    )


def test_a_model_of_an_earlier_version_is_drawn_as_before(model_dir: Path, store: str, tmp_path: Path) -> None:
    about, said = _sampled(str(model_dir), store, tmp_path / "out")
    assert (about["preset"], about["sampling"]["sampler"], about["sampling"]["num_inference_steps"]) == (
        "plain", "ddim", 50,
    )  # fmt: skip
    assert "the model has no preset" in " ".join(said.split())


def test_it_goes_through_the_registry_and_others_come_to_it(
    with_evaluated: Path, store: str, tiny_job: Build, tmp_path: Path
) -> None:
    with tracked_run(tiny_job(), store, None, "digest") as run:
        made = registration.register(run, with_evaluated, RegistryConfig(name="ways"), {"a": "b"}, {}, 8, "# card\n")
    assert list(made.presets) == [EVALUATED]
    assert registry.PRESETS not in made.tags
    weights = made.tags[registry.WEIGHTS]
    changed = version_presets.add_presets("models:/ways@candidate", {"balanced": BALANCED})
    assert list(changed.presets) == [EVALUATED, "balanced"]
    assert registry.find_version("models:/ways/1") == changed
    assert (changed.version, changed.aliases, changed.tags[registry.WEIGHTS]) == (1, ["candidate"], weights)
    assert "| `balanced` | dpmsolver++, 2 steps | 2 | 40.0 (16.0) | 300 |" in changed.card
    kept = model_files.fetch_model("models:/ways/1", tmp_path / "kept")
    assert list(read_presets(kept).presets) == [EVALUATED, "balanced"]
    about, _ = _sampled("models:/ways@candidate", store, tmp_path / "out", "--preset", "balanced")
    assert (about["preset"], about["network_calls"], about["sampling"]["sampler"]) == ("balanced", 2, "dpmsolver++")
    about, _ = _sampled("models:/ways@candidate", store, tmp_path / "out")
    assert (about["preset"], about["network_calls"]) == (EVALUATED, 4)
    arguments = ["sample", "models:/ways@candidate", "--preset", "best", "--tracking-uri", store]
    assert "must be one of the model's, evaluated, balanced and plain" in CliRunner().invoke(app, arguments).output
    # whoever downloads its files afterwards has them, too
    served = mlflow.pyfunc.load_model("models:/ways/1")
    drawn = {name: served.predict(pd.DataFrame([row])) for name, row in {
        "default": {"count": 2}, "balanced": {"count": 2, "preset": "balanced"}, "fewer": {"count": 2, "steps": 2},
    }.items()}  # fmt: skip
    with Session(WorkersConfig()) as session:
        for name, settings in {
            "default": EVALUATION,
            "balanced": SamplingConfig(sampler="dpmsolver++", num_inference_steps=2),
            "fewer": EVALUATION.model_copy(update={"num_inference_steps": 2}),
        }.items():
            assert np.array_equal(drawn[name], generate_images(with_evaluated, settings, 2, session)), name
    with pytest.raises(ConfigError, match="got best"):
        served.predict(pd.DataFrame([{"preset": "best"}]))


def test_an_evaluation_of_a_model_draws_as_its_training_did(
    with_evaluated: Path, store: str, tiny_data: str, tmp_path: Path, tiny_dataset: Dataset
) -> None:
    common = [f"model_uri={with_evaluated}", f"tracking.uri={store}", f"data.path={tiny_data}", f"output={tmp_path}"]
    common += ["data.phantom_count=60", "data.image_size=16", "evaluation.metrics=[ssim_pairs]"]
    for more, steps, eta in (([], 4, 0.5), (["evaluation.preset=plain", "evaluation.num_inference_steps=2"], 2, 0.0)):
        job = load_job("evaluate", [*common, "evaluation.num_samples=6", *more])
        assert isinstance(job, EvaluateJob)
        with Session(job.workers) as session:
            summary, evaluation = run_evaluation(job, session, False)
        config = evaluation.result.config
        assert (config.num_inference_steps, config.eta, config.preset) == (steps, eta, None)
        run = mlflow.get_run(summary["run_id"])
        assert run.data.params["evaluation.num_inference_steps"] == str(steps)


def test_a_training_names_no_preset(tiny_job: Build) -> None:
    with pytest.raises(ConfigError, match=r"evaluation.preset: is of a model that is there already.*got 'evaluated'"):
        tiny_job("evaluation.preset=evaluated")


def test_the_cards_table_is_replaced_and_the_rest_stays(tiny_dataset: Dataset) -> None:
    first = Presets().with_presets({"balanced": BALANCED})
    for card in ("# model\n\ntext\n\n## Limits\n\n- none\n", "# model\n\ntext\n"):
        once = with_presets(card, first)
        assert once.count("## Ways to draw") == 1
        twice = with_presets(once, first.with_presets({"diverse": BALANCED}))
        assert twice.count("## Ways to draw") == twice.count("`diverse`") == 1
        assert with_presets(twice, first) == once
        assert all(line in twice.splitlines() for line in card.splitlines())
    assert with_presets("# model\n", Presets()) == "# model\n"


def test_a_damaged_file_is_no_reason_to_draw_otherwise(with_evaluated: Path, store: str, tmp_path: Path) -> None:
    (with_evaluated / "presets.json").write_text("{")
    result = CliRunner().invoke(app, ["sample", str(with_evaluated), "--out", str(tmp_path / "o")])
    assert result.exit_code == 1
    assert "presets.json" in result.output
    write_presets(with_evaluated, Presets())
    assert isinstance(read_presets(with_evaluated), Presets)


def test_a_gan_is_drawn_with_its_preset_and_its_truncation(tiny_gan: Build, store: str, tmp_path: Path) -> None:
    from lwddpm.models.build import build_model
    from lwddpm.training.stored_model import SavedModel, save_model

    job = tiny_gan("model.family=gan")
    saved = SavedModel(
        model=job.model, diffusion=None, image_size=16, dataset_version="v", dataset_simulated=True,
        training_digest="d", step=1, epoch=1.0, parameters=1,
    )  # fmt: skip
    folder = save_model(tmp_path / "model", build_model(job.model, 16), saved)
    assert job.evaluation is not None
    made = {
        EVALUATED: Preset.of(job.evaluation, 1, {}, ""),
        "realistic": Preset.of(job.evaluation.model_copy(update={"truncation": 0.5}), 1, {}, ""),
    }
    write_presets(folder, Presets().with_presets(made))
    for options, name, truncation in (
        ([], EVALUATED, None),
        (["--truncation", "2"], EVALUATED, 2.0),
        (["--preset", "realistic"], "realistic", 0.5),
    ):
        about, said = _sampled(str(folder), store, tmp_path / "out", *options)
        assert about["preset"] == name
        assert about["sampling"].get("truncation") == truncation
        assert about["sampling"]["sampler"] == "generator"
        assert "one pass of the generator" in said
    arguments = ["sample", str(folder), "--steps", "5", "--out", str(tmp_path / "no")]
    assert "num_inference_steps: the model is a GAN" in CliRunner().invoke(app, arguments).output


def test_a_diffusion_model_has_no_latents_to_cut_off(model_dir: Path, tiny_job: Build) -> None:
    result = CliRunner().invoke(app, ["sample", str(model_dir), "--truncation", "0.5"])
    assert result.exit_code == 2
    assert "sampling.truncation: is a GAN's" in result.output
    with pytest.raises(ConfigError, match=r"evaluation.truncation: is a GAN's"):
        tiny_job("evaluation.truncation=0.5")
