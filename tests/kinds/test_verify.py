"""Images that a model has drawn, and images that it has not: `lwddpm verify` draws again and compares."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from lwddpm.cli import app
from lwddpm.config import RegistryConfig, SampleJob, TrackingConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.kinds.jobs import run_job
from lwddpm.kinds.verify import verify_files
from lwddpm.marks import files
from lwddpm.models.build import build_model, count_parameters
from lwddpm.tracking import registration, registry
from lwddpm.tracking.runs import tracked_run
from lwddpm.tracking.store import connect
from lwddpm.training.stored_model import SavedModel, save_model

Build = Callable[..., TrainJob]
MODEL = "models:/drawing/1"


def _register(job: TrainJob, store: str, model_dir: Path, name: str = "drawing") -> registry.RegisteredVersion:
    with tracked_run(job, store, None, "digest") as run:
        return registration.register(run, model_dir, RegistryConfig(name=name), {}, {}, 8, "card")


@pytest.fixture
def registered(tiny_job: Build, store: str, model_dir: Path) -> str:
    connect(store)
    _register(tiny_job(), store, model_dir)
    return store


def _draw(store: str, out: Path, model_uri: str = "models:/drawing@candidate", **settings: Any) -> Path:
    sampling = {"num_inference_steps": 3, "seed": 4, "batch_size": 4} | settings.pop("sampling", {})
    job = {"kind": "sample", "name": "sample", "model_uri": model_uri, "count": 6, "out": str(out)} | settings
    run_job(SampleJob.model_validate(job | {"sampling": sampling, "tracking": {"uri": store}}))
    return out


def _verify(store: str, *paths: Path, model: Path | None = None) -> list[dict[str, Any]]:
    return verify_files([str(path) for path in paths], TrackingConfig(uri=store), str(model) if model else None)


def _states(found: list[dict[str, Any]]) -> list[str]:
    return [image["state"] for image in found]


@pytest.mark.parametrize(("format", "ending"), [("png", "png"), ("dicom", "dcm"), ("nifti", "nii.gz")])
def test_what_a_registered_model_drew_is_confirmed(registered: str, format: str, ending: str, tmp_path: Path) -> None:
    out = _draw(registered, tmp_path / "out", format=format)
    assert {file.name for file in out.iterdir()} == {*(f"{i}.{ending}" for i in range(6)), "grid.png", "samples.json"}
    found = _verify(registered, out)
    assert len(found) == 7
    assert set(_states(found)) == {"confirmed"}, found
    assert {(image["drawn_by"], image["max_difference"], image["exit_code"]) for image in found} == {(MODEL, 0, 0)}
    for file in out.iterdir():  # a mark tells nothing of this machine
        assert str(tmp_path) not in (files.read(file)[1] or "" if file.suffix != ".json" else "")


def test_an_image_depends_on_seed_and_number_wherever_it_lies(registered: str, tmp_path: Path) -> None:
    out = _draw(registered, tmp_path / "out")
    moved = (out / "5.png").rename(tmp_path / "renamed.png")
    other = _draw(registered, tmp_path / "other", sampling={"seed": 5})
    found = _verify(registered, moved, other / "0.png")
    assert _states(found) == ["confirmed", "confirmed"]
    assert "seed 4, index 5" in found[0]["message"]
    assert "seed 5, index 0" in found[1]["message"]


def _with_mark(source: Path, target: Path, change: Callable[[np.ndarray], np.ndarray], **mark: Any) -> Path:
    """A PNG with other pixels or another mark."""
    pixels, text = files.read(source)
    assert pixels is not None
    info = PngInfo()
    info.add_text("lwddpm", json.dumps(json.loads(text or "") | mark))
    Image.fromarray(change(pixels.copy())).save(target, pnginfo=info)
    return target


def _brighter(amount: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(pixels: np.ndarray) -> np.ndarray:
        pixels[3, 4] = pixels[3, 4] + amount if pixels[3, 4] < 128 else pixels[3, 4] - amount
        return pixels

    return change


def test_a_changed_pixel_and_a_changed_mark_are_found_out(registered: str, tmp_path: Path) -> None:
    out = _draw(registered, tmp_path / "out")
    sampling = json.loads(files.read(out / "2.png")[1] or "")["sampling"]
    pixel = _with_mark(out / "2.png", tmp_path / "pixel.png", _brighter(9))
    index = _with_mark(out / "2.png", tmp_path / "index.png", np.asarray, index=3)
    seed = _with_mark(out / "2.png", tmp_path / "seed.png", np.asarray, sampling=sampling | {"seed": 5})
    steps = _with_mark(
        out / "2.png", tmp_path / "steps.png", np.asarray, sampling=sampling | {"num_inference_steps": 9000}
    )
    size = _with_mark(out / "2.png", tmp_path / "size.png", lambda pixels: pixels[1:])
    gan = _with_mark(out / "2.png", tmp_path / "gan.png", np.asarray, sampling=sampling | {"sampler": "generator"})
    broken = _with_mark(out / "2.png", tmp_path / "broken.png", np.asarray, index="two")
    by_pixel, by_index, by_seed, by_steps, by_size, by_gan, by_broken = _verify(
        registered, pixel, index, seed, steps, size, gan, broken
    )
    assert (by_pixel["state"], by_pixel["pixels_different"], by_pixel["max_difference"]) == ("differs", 1, 9)
    assert "1 of 256 pixels differ, by up to 9 grey levels" in by_pixel["message"]
    assert (
        by_index["state"] == by_seed["state"] == by_steps["state"] == by_size["state"] == by_gan["state"] == "differs"
    )
    assert by_index["pixels_different"] > 50
    assert by_seed["pixels_different"] > 50
    assert "num_train_timesteps" in by_steps["message"]
    assert "it is 16 x 15 pixels" in by_size["message"]
    assert by_broken["state"] == "not ours"
    assert "index" in by_broken["message"]
    assert {image["exit_code"] for image in (by_pixel, by_index, by_seed, by_steps, by_size, by_gan, by_broken)} == {1}


def test_one_grey_level_is_rounding_and_not_the_same(registered: str, tmp_path: Path) -> None:
    out = _draw(registered, tmp_path / "out")
    (found,) = _verify(registered, _with_mark(out / "2.png", tmp_path / "rounded.png", _brighter(1)))
    assert (found["state"], found["exit_code"]) == ("confirmed within rounding", 0)
    assert (found["pixels_different"], found["max_difference"]) == (1, 1)


def test_what_bears_no_mark_is_none_of_ours(registered: str, tmp_path: Path) -> None:
    out = _draw(registered, tmp_path / "out")
    Image.open(out / "0.png").save(tmp_path / "compressed.jpg")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "foreign.png")
    nibabel.save(nibabel.Nifti1Image(np.zeros((16, 16, 4), np.uint8), np.eye(4)), tmp_path / "head.nii.gz")
    found = _verify(registered, *(tmp_path / name for name in ("compressed.jpg", "foreign.png", "head.nii.gz")))
    assert set(_states(found)) == {"not ours"}
    assert {image["exit_code"] for image in found} == {1}
    (tmp_path / "text.png").write_text("no picture")
    (unreadable,) = _verify(registered, tmp_path / "text.png")
    assert (unreadable["state"], unreadable["exit_code"]) == ("unreadable", 2)


def test_a_lossy_copy_that_kept_its_mark_differs(registered: str, tmp_path: Path) -> None:
    out = _draw(registered, tmp_path / "out")
    Image.open(out / "1.png").save(tmp_path / "lossy.jpg", quality=60)
    lossy = np.asarray(Image.open(tmp_path / "lossy.jpg"))
    (found,) = _verify(registered, _with_mark(out / "1.png", tmp_path / "lossy.png", lambda pixels: lossy))
    assert found["state"] == "differs"
    assert found["pixels_different"] > 10


def test_a_model_that_is_gone_is_said(registered: str, model_dir: Path, store: str, tmp_path: Path) -> None:
    out = _draw(registered, tmp_path / "out")
    assert _states(_verify(registered, out / "0.png", model=model_dir)) == ["confirmed"]
    connect(store).delete_model_version("drawing", "1")
    (found,) = _verify(registered, out / "0.png")
    assert (found["state"], found["exit_code"], found["drawn_by"]) == ("model not found", 1, None)
    assert "models:/drawing/1 drew it" in found["message"]
    assert "--model" in found["message"]


def test_another_version_with_the_same_weights_is_named(
    tiny_job: Build, registered: str, model_dir: Path, tmp_path: Path
) -> None:
    out = _draw(registered, tmp_path / "out")
    _register(tiny_job(), registered, model_dir, name="copied")
    assert _verify(registered, out / "0.png")[0]["drawn_by"] == MODEL
    connect(registered).delete_model_version("drawing", "1")
    (found,) = _verify(registered, out / "0.png")
    assert (found["state"], found["drawn_by"]) == ("confirmed", "models:/copied/1")
    assert "its mark names models:/drawing/1" in found["message"]


def test_versions_that_do_not_say_their_weights_are_looked_at(registered: str, tmp_path: Path) -> None:
    """As 0.1.0 registered them."""
    out = _draw(registered, tmp_path / "out")
    connect(registered).delete_model_version_tag("drawing", "1", registry.WEIGHTS)
    assert _states(_verify(registered, out / "0.png")) == ["confirmed"]


def test_a_model_folder_needs_no_registry(model_dir: Path, store: str, tmp_path: Path) -> None:
    out = _draw(store, tmp_path / "out", model_uri=str(model_dir), format="dicom")
    assert str(model_dir.parent).encode() not in (out / "0.dcm").read_bytes()
    found = verify_files([str(out)], TrackingConfig(uri="http://127.0.0.1:1"), str(model_dir))
    assert set(_states(found)) == {"confirmed"}


def test_a_gans_images_are_confirmed_too(
    tiny_gan: Build, tiny_dataset: Dataset, registered: str, tmp_path: Path
) -> None:
    job = tiny_gan("model.family=lsgan")
    torch.manual_seed(1)
    saved = SavedModel(
        model=job.model,
        diffusion=None,
        image_size=16,
        dataset_version=tiny_dataset.version,
        dataset_simulated=True,
        training_digest=job.training_digest(),
        step=8,
        epoch=1.0,
        parameters=count_parameters(job.model, 16),
    )
    folder = save_model(tmp_path / "gan" / "model", build_model(job.model, 16), saved)
    _register(job, registered, folder, name="gan")
    sampling = {"sampler": None, "num_inference_steps": None}
    out = _draw(registered, tmp_path / "out", model_uri="models:/gan/1", sampling=sampling)
    diffusion = _draw(registered, tmp_path / "diffusion")
    found = _verify(registered, out / "0.png", diffusion / "0.png", out / "5.png", out / "grid.png")
    assert set(_states(found)) == {"confirmed"}
    assert [image["drawn_by"] for image in found] == ["models:/gan/1", MODEL, "models:/gan/1", "models:/gan/1"]


def test_the_command_says_it_and_exits_with_the_worst(registered: str, tmp_path: Path) -> None:
    out = _draw(registered, tmp_path / "out")
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "foreign.png")
    for names, code in (
        (["out/0.png"], 0),
        (["out/0.png", "foreign.png"], 1),
        (["foreign.png", "text.png", "out/0.png"], 2),
        (["out"], 0),
    ):
        arguments = [*(str(tmp_path / name) for name in names), "--tracking-uri", registered]
        result = CliRunner().invoke(app, ["verify", *arguments, "--json"])
        assert result.exit_code == code, result.stderr
        assert len(json.loads(result.stdout)) == (7 if names == ["out"] else len(names))
    result = CliRunner().invoke(app, ["verify", str(out / "0.png"), "--tracking-uri", registered])
    assert "SYNTHETIC, drawn by models:/drawing/1, seed 4, index 0: confirmed" in result.stdout
    (tmp_path / "nothing").mkdir()
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "nothing")])
    assert result.exit_code == 2
    assert "holds no" in result.stderr
    assert not list(out.glob("*.tmp"))
