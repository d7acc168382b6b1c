"""A conditional model from the command line to its files and back: classes, marks, verifying, refusals."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lwddpm.cli.app import app
from lwddpm.cli.asked import asked
from lwddpm.config import RegistryConfig, SamplingConfig, TrackingConfig, TrainJob
from lwddpm.errors import ConfigError
from lwddpm.jobfile import load_job
from lwddpm.kinds.dry_run import plan
from lwddpm.kinds.saved_model import asked_of, fitting
from lwddpm.kinds.verify import verify_files
from lwddpm.marks import files
from lwddpm.tracking import registration
from lwddpm.tracking.runs import tracked_run
from lwddpm.training.stored_model import read_saved_model

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")


@pytest.fixture
def sample(store: str, conditional_dir: Path, tmp_path: Path) -> Callable[..., tuple[int, str, Path]]:
    """Runs `lwddpm sample` of the network; returns exit code, output and folder."""

    def run(*arguments: str, out: str = "out") -> tuple[int, str, Path]:
        fixed = ["sample", str(conditional_dir), "--steps", "2", "--precision", "fp32", "--tracking-uri", store]
        result = CliRunner().invoke(app, [*fixed, "--out", str(tmp_path / out), *arguments])
        return result.exit_code, result.output, tmp_path / out

    return run


def _table(folder: Path) -> list[dict[str, str]]:
    with (folder / "conditions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_classes_with_counts_are_drawn_named_marked_and_confirmed(
    sample: Callable[..., tuple[int, str, Path]], conditional_dir: Path
) -> None:
    code, output, out = sample("--class", "glioma_tumor:4", "--class", "no_tumor:2", "--guidance", "1.5")
    assert code == 0, output
    rows = _table(out)
    assert Counter(row["label"] for row in rows) == {"glioma_tumor": 4, "no_tumor": 2}
    for index, row in enumerate(rows):
        mark = json.loads(files.read(out / row["file"])[1] or "")
        assert row["file"] == f"{index}_{row['label']}.png"
        assert mark["conditions"] == {"label": row["label"]}
        assert mark["guide_sha256"] is None
        assert mark["sampling"]["guidance_from"] == "unconditional"
    about = json.loads((out / "samples.json").read_text())
    assert about["classes"] == {"glioma_tumor": 4, "no_tumor": 2}
    assert about["network_calls"] == 4
    found = verify_files([str(out)], TrackingConfig(), str(conditional_dir))
    assert {image["state"] for image in found} == {"confirmed"}, found
    assert len(found) == 7


def test_the_way_between_two_drawings_has_one_class(
    sample: Callable[..., tuple[int, str, Path]], conditional_dir: Path
) -> None:
    code, output, out = sample("--between", "0", "1", "--frames", "5", "--like", "balanced")
    assert code == 0, output
    marks = [json.loads(files.read(out / f"{index}.png")[1] or "") for index in range(5)]
    assert len({mark["conditions"]["label"] for mark in marks}) == 1
    assert marks[0]["conditions"]["label"] is not None
    found = verify_files([str(out)], TrackingConfig(), str(conditional_dir))
    slices = [image for image in found if Path(image["file"]).stem.isdigit()]
    assert [image["state"] for image in slices] == ["confirmed"] * 5, found


def test_a_mark_that_names_another_class_is_found_out(
    sample: Callable[..., tuple[int, str, Path]], conditional_dir: Path, tmp_path: Path
) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    _, _, out = sample("--class", "no_tumor", "--count", "2")
    pixels, text = files.read(out / "1_no_tumor.png")
    info = PngInfo()
    info.add_text("lwddpm", json.dumps(json.loads(text or "") | {"conditions": {"label": "glioma_tumor"}}))
    Image.fromarray(pixels).save(tmp_path / "other.png", pnginfo=info)
    (found,) = verify_files([str(tmp_path / "other.png")], TrackingConfig(), str(conditional_dir))
    assert found["state"] == "differs"
    assert "glioma_tumor" in found["message"]
    assert "no_tumor" in found["message"]


def test_without_a_class_the_shares_are_those_of_the_training_slices(
    sample: Callable[..., tuple[int, str, Path]], conditional_dir: Path
) -> None:
    code, output, out = sample("--count", "12", "--like", "train")
    assert code == 0, output
    vocabulary = read_saved_model(conditional_dir).conditions
    assert vocabulary is not None
    counts, drawn = vocabulary.counts("label"), Counter(row["label"] for row in _table(out))
    for name in CLASSES:
        assert abs(drawn[name] - 12 * counts[name] / sum(counts.values())) < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--class", "gliom"), "must be one of glioma_tumor, meningioma_tumor, no_tumor, pituitary_tumor"),
        (("--condition", "plane=axial"), "the model's conditions are label"),
        (("--class", "no_tumor:3", "--count", "4"), "must be 3, the sum of the classes"),
        (("--like", "test"), "train"),
        (("--guidance", "2", "--guidance-from", "guide"), "takes a model with a guide"),
        (("--guidance", "2", "--condition-guidance", "3"), "takes a model with a guide"),
        (("--guidance", "2", "--guidance-from", "unconditional", "--condition-guidance", "3"), "so does guidance_from"),
        (("--condition-guidance", "0.5"), "greater than or equal to 1"),
    ],
)
def test_what_a_model_does_not_know_is_refused(
    sample: Callable[..., tuple[int, str, Path]], arguments: tuple[str, ...], message: str
) -> None:
    code, output, out = sample(*arguments)
    assert code == 2
    assert message in output
    assert not out.exists()


def test_models_without_conditions_or_dropout_are_refused_them(model_dir: Path, conditional_dir: Path) -> None:
    saved = read_saved_model(model_dir)
    with pytest.raises(ConfigError, match=r"sampling.conditions: is for a model with conditions"):
        fitting(SamplingConfig(conditions={"label": "no_tumor"}), saved, model_dir, "sampling")
    with pytest.raises(ConfigError, match=r"sampling.like: is for a model with conditions"):
        fitting(SamplingConfig(like="balanced"), saved, model_dir, "sampling")
    with pytest.raises(ConfigError, match="takes a model with conditions"):
        fitting(SamplingConfig(guidance=2, guidance_from="unconditional"), saved, model_dir, "sampling")
    with pytest.raises(ConfigError, match=r"condition_guidance: leads away .* has no conditions; leave it out"):
        fitting(SamplingConfig(condition_guidance=2), saved, model_dir, "sampling")
    saved = read_saved_model(conditional_dir)
    assert saved.conditions is not None
    never = saved.model_copy(update={"conditions": saved.conditions.model_copy(update={"dropout": 0.0})})
    with pytest.raises(ConfigError, match=r"trained with training.condition_dropout = 0"):
        fitting(SamplingConfig(guidance=2), never, conditional_dir, "sampling")
    with pytest.raises(ConfigError, match=r"condition_guidance: .*trained with training.condition_dropout = 0"):
        fitting(SamplingConfig(condition_guidance=2), never, conditional_dir, "sampling")


def test_a_served_model_draws_the_class_of_a_row(
    tiny_job: Callable[..., TrainJob], store: str, conditional_dir: Path
) -> None:
    import mlflow
    import pandas as pd

    with tracked_run(tiny_job(), store, None, "digest") as run:
        registration.register(run, conditional_dir, RegistryConfig(name="conditional"), {}, {}, 8, "card")
    served = mlflow.pyfunc.load_model("models:/conditional/1")
    row = {"count": 2, "seed": 3, "steps": 3}
    one, other = (served.predict(pd.DataFrame([row | {"label": name}])) for name in CLASSES[:2])
    mixture = served.predict(pd.DataFrame([row]))
    assert (one != other).any()
    saved = read_saved_model(conditional_dir)
    asked_for = [values["label"] for values in asked_of(SamplingConfig(), saved, range(2)) if values is not None]
    for index, label in enumerate(asked_for):
        np.testing.assert_array_equal(served.predict(pd.DataFrame([row | {"label": label}]))[index], mixture[index])
    obeying = served.predict(pd.DataFrame([row | {"condition_guidance": 4.0, "label": CLASSES[0]}]))
    assert (obeying != one).any()
    with pytest.raises(Exception, match=r"must be one of glioma_tumor"):
        served.predict(pd.DataFrame([row | {"label": "other"}]))


def test_classes_on_the_command_line() -> None:
    assert asked(["a"], ["plane=axial", "sequence="], 5) == ({"plane": "axial", "sequence": None, "label": "a"}, 5)
    assert asked(["a:2", "b:3"], [], None) == ({"label": {"a": 2, "b": 3}}, 5)
    assert asked(["a", "b"], [], 8) == ({"label": {"a": 1, "b": 1}}, 8)
    assert asked(["grade:IV"], [], None) == ({"label": "grade:IV"}, None)
    for classes, conditions in (["a:1", "b"], []), (["a", "a"], []), ([""], []), (["a:0"], []), ([], ["plane"]):
        with pytest.raises(ConfigError):
            asked(classes, conditions, None)
    with pytest.raises(ConfigError, match="leave one of them out"):
        asked(["a"], ["label=b"], None)


def test_a_dry_run_says_what_a_dataset_can_be_asked_for(tiny_job: Callable[..., TrainJob]) -> None:
    described = plan(tiny_job("model.conditions=[label]"))
    assert described["conditions"] == {"label": ", ".join(CLASSES)}
    assert described["parameters"] == plan(tiny_job())["parameters"] + 5 * 8
    unprepared = plan(load_job("prepare", ["data.source=phantom", "data.phantom_count=8", "data.path=nowhere"]))
    assert set(unprepared["conditions"]) == {"label"}
