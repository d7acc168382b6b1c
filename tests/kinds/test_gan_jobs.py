"""A GAN through the front door: trained, evaluated, registered, sampled, served."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from lwddpm.cli.app import app
from lwddpm.config import TrainJob
from lwddpm.errors import ConfigError
from lwddpm.jobfile import load_job
from lwddpm.kinds.dry_run import plan
from lwddpm.kinds.jobs import run_job
from lwddpm.kinds.verify import verify_files
from lwddpm.tracking.registry import find_version
from lwddpm.tracking.store import connect

Build = Callable[..., TrainJob]
MODEL = "models:/lw-ddpm-demo@candidate"
pytestmark = pytest.mark.cluster


def test_a_gan_goes_the_way_of_every_model(tiny_gan: Build, tiny_data: str, tmp_path: Path) -> None:
    job = tiny_gan("model.family=wgan", "adversarial.n_critic=2")
    needs = plan(job)
    result = run_job(job)
    assert result["parameters"] == needs["parameters"]
    copied = {"eval/copied_share", "eval/copied_share_floor"}  # of every model
    assert result["metrics"].keys() == {"eval/ssim_pairs", "eval/ssim_pairs_floor"} | copied
    (missing,) = result["unavailable"]
    assert missing["name"] == "ssim_reconstruction"
    assert "a GAN only draws" in missing["reason"]

    client = connect(str(job.tracking.uri))
    run = client.get_run(result["run_id"])
    assert run.info.status == "FINISHED"
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss_discriminator")]
    assert sorted(steps) == list(range(1, 9))
    assert run.data.params["adversarial.n_critic"] == "2"
    assert not any(key.startswith("diffusion.") for key in run.data.params)
    figures = {f.path for f in client.list_artifacts(run.info.run_id, "figures")}
    assert figures == {"figures/intensities.png", "figures/loss.png", "figures/real_beside_synthetic.png"}
    card = find_version(MODEL).card
    assert "generator, wgan" in card
    assert "clip 0.01" in card
    assert "RMSprop" in card

    tracking, data = f"tracking.uri={job.tracking.uri}", f"data.path={tiny_data}"
    sample = [tracking, f"model_uri={MODEL}", "count=3", f"out={tmp_path / 'drawn'}"]
    run_job(load_job("sample", sample))
    drawn = np.stack([np.asarray(Image.open(tmp_path / "drawn" / f"{i}.png")) for i in range(3)])
    about = json.loads((tmp_path / "drawn" / "samples.json").read_text())
    assert (about["sampling"]["sampler"], about["sampling"]["num_inference_steps"]) == ("generator", 1)
    with pytest.raises(ConfigError, match=r"sampling\.(sampler|num_inference_steps): the model is a GAN"):
        run_job(load_job("sample", [*sample, "sampling.sampler=ddim"]))

    served = mlflow.pyfunc.load_model(MODEL).predict(pd.DataFrame([{"count": 3, "seed": 0}]))
    assert np.abs(served.astype(int) - drawn).max() <= 1

    common = [tracking, data, f"model_uri={MODEL}", "data.phantom_count=60", "data.image_size=16"]
    nulls = [f"evaluation.{n}=null" for n in ("sampler", "num_inference_steps", "reconstruction_timestep")]
    again = run_job(
        load_job("evaluate", [*common, *nulls, "evaluation.metrics=[ssim_pairs]", "evaluation.num_samples=6"])
    )
    assert again["metrics"] == pytest.approx(result["metrics"], abs=0.01)


def test_a_collapse_is_said_and_tagged(
    tiny_gan: Build, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A generator that forgets its latents: nothing else is pretended."""
    from lwddpm.models.gan import Generator

    forward = Generator.forward
    monkeypatch.setattr(Generator, "forward", lambda self, latents: forward(self, 0 * latents))
    job = tiny_gan("model.family=lsgan", "training.precision=fp32")
    result = run_job(job)
    assert "mode collapse" in result["warnings"][0]
    tags = connect(str(job.tracking.uri)).get_run(result["run_id"]).data.tags
    assert "mode collapse" in tags["lwddpm.warning"]
    said = capfd.readouterr().err
    assert "warning: step 8: mode collapse" in said
    assert "**mode collapse" in str(find_version(MODEL).card)


@pytest.mark.parametrize("family", ["gan", "wgan", "lsgan"])
def test_a_gan_that_is_told_the_class_draws_what_it_is_asked_for(tiny_gan: Build, tmp_path: Path, family: str) -> None:
    job = tiny_gan(f"model.family={family}", "model.conditions=[label]", "training.max_steps=2")
    needs = plan(job)
    assert needs["conditions"] == {"label": "glioma_tumor, meningioma_tumor, no_tumor, pituitary_tumor"}
    result = run_job(job)
    assert result["parameters"] == needs["parameters"]
    assert 0 <= result["metrics"]["eval/obedience_lite0"] <= 1
    assert 0 < result["metrics"]["eval/obedience_lite0_floor"] <= 1
    figures = connect(str(job.tracking.uri)).list_artifacts(result["run_id"], "figures")
    assert "figures/obedience.png" in {figure.path for figure in figures}

    sample = ["sample", MODEL, "--tracking-uri", str(job.tracking.uri), "--out", str(tmp_path / "drawn")]
    drawn = CliRunner().invoke(app, [*sample, "--class", "glioma_tumor:2", "--class", "no_tumor:1"])
    assert drawn.exit_code == 0, drawn.output
    with (tmp_path / "drawn" / "conditions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert Counter(row["label"] for row in rows) == {"glioma_tumor": 2, "no_tumor": 1}
    found = verify_files([str(tmp_path / "drawn")], job.tracking)
    assert {image["state"] for image in found} == {"confirmed"}, found
    unknown = CliRunner().invoke(app, [*sample, "--class", "other"])
    assert unknown.exit_code == 2
    assert "must be one of glioma_tumor" in unknown.output

    # the same latents, told another class, are another slice
    served = mlflow.pyfunc.load_model(MODEL)
    one, other = (served.predict(pd.DataFrame([{"count": 2, "seed": 0, "label": row["label"]}])) for row in rows[1:])
    assert (one != other).any()
