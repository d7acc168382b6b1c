"""Sample jobs that begin with something given: what lies in the folder, what its marks say, and what `verify` finds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from lwddpm.cli import app
from lwddpm.config import SampleJob, TrackingConfig, TrainJob
from lwddpm.data.edit_source import bring_to_size
from lwddpm.data.store import Dataset
from lwddpm.errors import LwddpmError
from lwddpm.kinds.jobs import run_job
from lwddpm.kinds.verify import source_of, verify_files
from lwddpm.marks import files
from lwddpm.marks.edited import pixels_sha256
from lwddpm.models.build import build_model, count_parameters
from lwddpm.training.stored_model import SavedModel, save_model

Build = Callable[..., TrainJob]
SIZE = 16


@pytest.fixture
def row(tiny_data: str) -> str:
    return f"{tiny_data}/test/1"


@pytest.fixture
def mask(tmp_path: Path) -> str:
    pixels = np.zeros((SIZE, SIZE), np.uint8)
    pixels[4:9, 5:12] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    return str(tmp_path / "mask.png")


def draw(model_dir: Path, store: str, out: Path, edit: dict[str, Any], **settings: Any) -> Path:
    sampling = {"num_inference_steps": 3, "seed": 4, "batch_size": 2} | settings.pop("sampling", {})
    job = {"kind": "sample", "name": "sample", "model_uri": str(model_dir), "out": str(out), "edit": edit} | settings
    run_job(SampleJob.model_validate(job | {"sampling": sampling, "tracking": {"uri": store}}))
    return out


def pixels(path: Path) -> np.ndarray:
    found = files.read(path)[0]
    assert found is not None
    return found


def verified(model_dir: Path, store: str, *paths: Path, source: str | None = None, mask: str | None = None) -> list:
    given = source_of(source, mask)
    return verify_files([str(path) for path in paths], TrackingConfig(uri=store), str(model_dir), given)


@pytest.mark.parametrize(("format", "ending"), [("png", "png"), ("dicom", "dcm"), ("nifti", "nii.gz")])
def test_a_region_drawn_anew_is_marked_and_confirmed_with_its_source(
    model_dir: Path, tiny_dataset: Dataset, store: str, row: str, mask: str, format: str, ending: str, tmp_path: Path
) -> None:
    out = draw(model_dir, store, tmp_path / "out", {"inpaint": row, "mask": mask}, count=3, format=format)
    expected = {*(f"{index}.{ending}" for index in range(3)), "grid.png", "figure.png", "samples.json"}
    assert {file.name for file in out.iterdir()} == expected
    source, drawn = tiny_dataset.images("test")[1], np.asarray(Image.open(mask)) > 0
    for index in range(3):
        image = pixels(out / f"{index}.{ending}")
        assert (image[~drawn] == source[~drawn]).all()
        assert (image[drawn] != source[drawn]).any()
    text = files.read(out / f"1.{ending}")[1] or ""
    edited = json.loads(text)["edit"]
    assert edited == {
        "how": "inpainting",
        "source_sha256": pixels_sha256(source),
        "mask_sha256": pixels_sha256(np.where(drawn, 255, 0).astype(np.uint8)),
    }
    assert str(tmp_path) not in text
    assert Path(row).parent.parent.name not in text
    alone = verified(model_dir, store, out)
    assert {image["state"] for image in alone} == {"takes its source"}
    assert {image["exit_code"] for image in alone} == {1}
    assert "--source FILE --mask FILE" in alone[0]["message"]
    found = verified(model_dir, store, out, source=row, mask=mask)
    assert [image["state"] for image in found] == ["confirmed"] * 4
    assert "EDITED: region drawn anew" in found[0]["message"]


def test_an_edited_image_does_not_say_that_it_shows_no_patient(
    model_dir: Path, store: str, row: str, mask: str, tmp_path: Path
) -> None:
    out = draw(model_dir, store, tmp_path / "out", {"inpaint": row, "mask": mask}, count=1)
    described = Image.open(out / "0.png").info["Description"]
    assert described.startswith("SYNTHETIC: edited")
    assert "shows no patient" not in described
    assert "EDITED" in described
    way = draw(model_dir, store, tmp_path / "way", {"between": [0, 1], "frames": 2})
    assert "shows no patient" in Image.open(way / "0.png").info["Description"]


def test_another_source_mask_or_pixel_is_found_out(
    model_dir: Path, tiny_data: str, store: str, row: str, mask: str, tmp_path: Path
) -> None:
    out = draw(model_dir, store, tmp_path / "out", {"inpaint": row, "mask": mask}, count=1)
    (other,) = verified(model_dir, store, out / "0.png", source=f"{tiny_data}/test/0", mask=mask)
    turned = tmp_path / "turned.png"
    Image.open(mask).transpose(Image.Transpose.ROTATE_90).save(turned)
    (shifted,) = verified(model_dir, store, out / "0.png", source=row, mask=str(turned))
    (unmasked,) = verified(model_dir, store, out / "0.png", source=row)
    assert [found["state"] for found in (other, shifted, unmasked)] == ["differs"] * 3
    assert "--source has others" in other["message"]
    assert "--mask has others" in shifted["message"]
    assert "name it with --mask" in unmasked["message"]


def test_variations_by_strength_and_the_way_between_two_seeds(
    model_dir: Path, tiny_dataset: Dataset, store: str, row: str, tmp_path: Path
) -> None:
    strengths = [0, 0.4, 1]
    out = draw(model_dir, store, tmp_path / "out", {"variations": row, "strength": strengths}, count=2)
    named = {f"strength_{strength:g}_{index}.png" for strength in strengths for index in (0, 1, "grid")}
    assert {file.name for file in out.iterdir()} == named | {"figure.png", "samples.json"}
    assert (pixels(out / "strength_0_1.png") == tiny_dataset.images("test")[1]).all()
    ordinary = tmp_path / "ordinary"
    plain = {"kind": "sample", "name": "sample", "model_uri": str(model_dir), "out": str(ordinary), "count": 2}
    sampling = {"num_inference_steps": 3, "seed": 4, "batch_size": 2}
    run_job(SampleJob.model_validate(plain | {"sampling": sampling, "tracking": {"uri": store}}))
    assert (pixels(out / "strength_1_1.png") == pixels(ordinary / "1.png")).all()
    assert {image["state"] for image in verified(model_dir, store, out, source=row)} == {"confirmed"}
    way = draw(model_dir, store, tmp_path / "way", {"between": [4, 7], "frames": 3})
    assert (pixels(way / "0.png") == pixels(ordinary / "0.png")).all()
    found = verified(model_dir, store, way)  # takes no source
    assert {image["state"] for image in found} == {"confirmed"}
    assert "on the way from seed 4 to seed 7 in 3 frames" in found[0]["message"]


def test_an_image_of_another_size_is_brought_to_the_models_with_its_mask(tmp_path: Path) -> None:
    """A head in one corner of a large picture: cropped, padded and shrunk, the mask stays on what it was painted on."""
    picture = np.zeros((200, 300), np.uint16)
    picture[40:140, 100:160] = 30_000
    picture[60:80, 110:130] = 60_000  # what is to be drawn anew
    Image.fromarray(picture).save(tmp_path / "deep.png")
    Image.fromarray(np.where(picture == 60_000, 255, 0).astype(np.uint8)).save(tmp_path / "mask.png")
    job = SampleJob.model_validate(
        {
            "kind": "sample",
            "name": "sample",
            "model_uri": "here",
            "edit": {
                "inpaint": str(tmp_path / "deep.png"),
                "mask": str(tmp_path / "mask.png"),
                "crop_background": True,
            },
        }
    )
    assert job.edit is not None
    given = bring_to_size(job.edit, 20)
    assert given.mask is not None
    assert given.source.shape == given.mask.shape == (20, 20)
    assert "from 300 x 200 pixels to 20 x 20, cropped" in given.brought
    ys, xs = np.nonzero(given.mask)
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (4, 7, 6, 9)  # a fifth of 100 x 60, in the middle of a square
    assert given.source[given.mask].mean() > 1.6 * given.source[12:18, 6:14].mean()


def refusal(model_dir: Path, *options: str) -> str:
    run = CliRunner().invoke(app, ["sample", str(model_dir), *options, "--steps", "2", "--count", "1"])
    assert run.exit_code == 2, run.output
    return run.output


def test_what_cannot_be_edited_is_refused_in_one_message(
    model_dir: Path, row: str, mask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lwddpm.cluster.generate.draw_indices", lambda *_, **__: pytest.fail("a worker has started"))
    for name, value in (("black.png", 0), ("white.png", 255)):
        Image.fromarray(np.full((SIZE, SIZE), value, np.uint8)).save(name)
    Image.fromarray(np.full((SIZE, SIZE + 1), 255, np.uint8)).save("wide.png")
    Path("broken.png").write_bytes(b"not an image")
    assert "has no white: nothing is drawn" in refusal(model_dir, "--inpaint", row, "--mask", "black.png")
    assert "is all white: nothing is kept" in refusal(model_dir, "--inpaint", row, "--mask", "white.png")
    wide = refusal(model_dir, "--inpaint", row, "--mask", "wide.png")
    assert "must be as large as its image, 16 x 16 pixels, got wide.png of 17 x 16 pixels" in wide
    assert "edit.variations: must be an image that can be read" in refusal(model_dir, "--variations", "broken.png")
    assert "name another file" in refusal(model_dir, "--variations", "missing.png")
    assert "below the" in refusal(model_dir, "--variations", f"{Path(row).parent}/999")
    assert "takes one of" in refusal(model_dir, "--variations", row, "--between", "0", "1")
    assert "takes one of" in refusal(model_dir, "--strength", "0.5")
    assert "edit.mask: is required" in refusal(model_dir, "--inpaint", row)
    assert "edit.mask: has no meaning for variations" in refusal(model_dir, "--variations", row, "--mask", mask)
    assert "edit.strength" in refusal(model_dir, "--variations", row, "--strength", "1.5")
    assert "number of frames" in refusal(model_dir, "--between", "0", "1", "--frames", "4")  # --count 1
    for way in (("--sampler", "ddpm"), ("--eta", "0.5")):
        run = CliRunner().invoke(app, ["sample", str(model_dir), "--between", "0", "1", *way])
        assert run.exit_code == 2
        assert "for edit.between" in run.output


def test_a_gan_goes_between_drawings_and_says_why_it_edits_no_slice(
    tiny_gan: Build, tiny_dataset: Dataset, store: str, row: str, mask: str, tmp_path: Path
) -> None:
    job = tiny_gan("model.family=gan")
    saved = SavedModel(
        model=job.model,
        diffusion=None,
        image_size=SIZE,
        dataset_version=tiny_dataset.version,
        dataset_simulated=True,
        training_digest="12345678",
        step=1,
        epoch=1.0,
        parameters=count_parameters(job.model, SIZE),
    )
    torch.manual_seed(0)
    model_dir = save_model(tmp_path / "gan", build_model(job.model, SIZE), saved)
    own = {"num_inference_steps": None, "batch_size": 2, "seed": 0}
    way = draw(model_dir, store, tmp_path / "way", {"between": [3, 8], "frames": 4}, sampling=own)
    assert [image["state"] for image in verified(model_dir, store, way)] == ["confirmed"] * 5
    for edit in ({"inpaint": row, "mask": mask}, {"variations": row}):
        with pytest.raises(LwddpmError, match="is a GAN, which draws from random numbers alone"):
            draw(model_dir, store, tmp_path / "no", edit, sampling=own)
