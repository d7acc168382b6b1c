"""Drawing what is asked for on the board: classes, counts, a grid by guidance; and models class by class."""

import io
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import mlflow
import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Page, expect

from lwddpm.config import TrackingConfig, TrainJob
from lwddpm.data.store import Dataset, open_dataset
from lwddpm.evaluation.result import Confusion, EvaluationResult, MetricRecord
from lwddpm.jobfile import load_job
from lwddpm.kinds.verify import source_of, verify_files
from lwddpm.models.build import build_model, count_parameters
from lwddpm.tracking import registration
from lwddpm.tracking.store import connect
from lwddpm.training.stored_guide import write_guide
from lwddpm.training.stored_model import SavedModel, save_model
from lwddpm.training.vocabulary import vocabulary_of
from lwddpm_board.stores import Stores

from .browser import in_browser, photograph
from .conftest import Board, drawn, serving

CLASSES = ("glioma_tumor", "meningioma_tumor")


@pytest.fixture(scope="module")
def store(
    empty_store: Path, tiny_data: str, tiny_overrides: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A registry with two versions of an untrained network that is told classes, each with an evaluation by class."""
    place, dataset = tmp_path_factory.mktemp("asked"), open_dataset(tiny_data)
    shutil.copy(empty_store, place / "mlflow.db")
    uri = f"sqlite:///{place / 'mlflow.db'}"
    client = connect(uri)
    job = load_job("demo", [*tiny_overrides, f"data.path={tiny_data}", "model.conditions=[label]"])
    assert isinstance(job, TrainJob)
    vocabulary = vocabulary_of(dataset, ("label",), 0.1)
    saved = SavedModel(
        model=job.model, diffusion=job.diffusion, image_size=16, dataset_version=dataset.version,
        dataset_simulated=True, training_digest=job.training_digest(), step=8, epoch=1.0,
        parameters=count_parameters(job.model, vocabulary=vocabulary), conditions=vocabulary,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = save_model(place / "model", build_model(job.model, vocabulary=vocabulary), saved)
    experiment = client.create_experiment("asked", artifact_location=str(place / "artifacts"))
    tags = {"lwddpm.dataset_version": dataset.version, "lwddpm.dataset_path": dataset.path}
    for obedience in (0.25, 0.75):
        with mlflow.start_run(experiment_id=experiment, tags=tags) as run:
            figures = {"eval/obedience_lite0": str(obedience), "eval/obedience_lite0_floor": "0.8"}
            figures |= {"eval/utility_lite0": str(obedience / 2), "eval/utility_lite0_floor": "0.65"}
            registration._new_version(folder, "asked", tags | figures)
            client.log_text(run.info.run_id, _evaluated(dataset, obedience), "evaluation/metrics.json")
    guided = Path(shutil.copytree(folder, place / "guided"))
    write_guide(guided, folder)
    with mlflow.start_run(experiment_id=experiment, tags=tags):
        registration._new_version(guided, "guided", tags)
    return uri


def _evaluated(dataset: Dataset, obedience: float) -> str:
    def record(
        name: str, value: float, parts: dict[str, float], floors: dict[str, float] | None = None
    ) -> MetricRecord:
        return MetricRecord(
            name=name, value=value, floor=0.8, n=40, num_reference=40, reference="train", image_size=16, extractor=None,
            weights_sha256=None, sampler="ddim", num_inference_steps=2, protocol="a test", parts=parts,
            floor_parts=floors or {},
        )  # fmt: skip

    one, two = CLASSES
    return EvaluationResult(
        dataset_version=dataset.version, simulated=True, config={}, unavailable=(),
        records=(
            record("out_of_band", 0.1, {"dark": 0.1, "bright": 0.0}),
            record("recall_lite0", 0.5, {one: 0.5}),
            record("obedience_lite0", obedience, {one: obedience, two: obedience / 2}),
            record("utility_lite0", obedience / 2, {one: obedience, two: 0.0}, {one: 0.875, two: obedience / 4}),
        ),
        confusion=Confusion(classes=CLASSES, generated=((1, 0), (0, 1)), real=((0.9, 0.1), (0.3, 0.7))),
    ).model_dump_json()  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the board keeps its drawings."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")  # a board starts a process that draws, which imports torch
def board(store: str, workspace: Path) -> Iterator[Board]:
    with serving(Stores(store, f"sqlite:///{workspace}/optuna.db", (), workspace)) as found:
        yield found


def _pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def _drawn(visitor: httpx2.Client, address: str = "/api/drawings", **wanted: Any) -> Any:
    return drawn(visitor, address, {"model": "models:/asked/1", "steps": 2, "nearest": False} | wanted)


def test_a_class_is_drawn_and_the_file_says_which(
    visitor: httpx2.Client, store: str, workspace: Path, tmp_path: Path, tiny_dataset: Dataset
) -> None:
    told = visitor.get("/api/models/asked/1").json()
    (label,) = told["conditions"]
    counts = np.bincount(tiny_dataset.labels("train"), minlength=len(tiny_dataset.label_names)).tolist()
    assert [(value["name"], value["count"]) for value in label["values"]] == list(
        zip(tiny_dataset.label_names, counts, strict=True)
    )
    assert (label["classes"], list(told["away_from"]), told["gan"]) == (True, ["unconditional"], False)
    one, two = CLASSES
    drawing = _drawn(visitor, count=4, guidance=2, conditions={"label": {one: 3, two: 1}})
    assert Counter(asked["label"] for asked in drawing["asked"]) == {one: 3, two: 1}
    assert "guidance 2 from being told nothing, 4 network calls a slice" in drawing["how"]
    alone = next(index for index, asked in enumerate(drawing["asked"]) if asked["label"] == two)
    (tmp_path / "two.png").write_bytes(visitor.get(f"/drawings/{drawing['id']}/{alone}.png").content)
    (found,) = verify_files([str(tmp_path / "two.png")], TrackingConfig(uri=store))
    assert (found["state"], found["mark"]["conditions"]) == ("confirmed", {"label": two}), found
    balanced = _drawn(visitor, count=len(counts), like="balanced", condition_guidance=3)
    assert ", guidance of the conditions 3, 4 network calls a slice" in balanced["how"]
    assert Counter(asked["label"] for asked in balanced["asked"]) == dict.fromkeys(tiny_dataset.label_names, 1)
    for wrong, said in (
        ({"conditions": {"label": "gliom_tumor"}}, "did you mean glioma_tumor?"),
        ({"conditions": {"plane": "axial"}}, "the model's conditions are label"),
        ({"guidance": 2, "guidance_from": "guide"}, "takes a model with a guide"),
        ({"guidance": 2, "condition_guidance": 3}, "takes a model with a guide"),
        ({"guidance": 2, "guidance_from": "unconditional", "condition_guidance": 3}, "so does guidance_from"),
    ):
        refused = visitor.post("/api/drawings", json={"model": "models:/asked/1", "steps": 2} | wrong)
        assert refused.status_code == 422
        assert said in refused.json()["error"]
        assert str(workspace.parent) not in refused.json()["error"]


def test_a_gan_is_asked_for_a_class_and_its_latents_are_cut_off(
    visitor: httpx2.Client, store: str, tmp_path: Path, tiny_dataset: Dataset, tiny_gan: Callable[..., TrainJob]
) -> None:
    job, vocabulary = (
        tiny_gan("model.family=gan", "model.conditions=[label]"),
        vocabulary_of(tiny_dataset, ["label"], 0),
    )
    saved = SavedModel(
        model=job.model, diffusion=None, image_size=16, dataset_version=tiny_dataset.version, dataset_simulated=True,
        training_digest=job.training_digest(), step=8, epoch=1.0, conditions=vocabulary,
        parameters=count_parameters(job.model, 16, vocabulary),
    )  # fmt: skip
    folder = save_model(tmp_path / "gan" / "model", build_model(job.model, 16, vocabulary), saved)
    experiment = connect(store).get_experiment_by_name("asked").experiment_id
    with mlflow.start_run(experiment_id=experiment):
        registration._new_version(folder, "gan", {})
    told = visitor.get("/api/models/gan/1").json()
    assert (told["gan"], told["away_from"]) == (True, {})
    asked = {"model": "models:/gan/1", "count": 2, "conditions": {"label": CLASSES[1]}}
    whole, cut = (_drawn(visitor, **asked, truncation=truncation) for truncation in (None, 0.1))
    assert [drawing["how"] for drawing in (whole, cut)] == [
        "one pass of the generator, seed 0", "one pass of the generator, truncation 0.1, seed 0",
    ]  # fmt: skip
    files = [visitor.get(f"/drawings/{drawing['id']}/1.png").content for drawing in (whole, cut)]
    spread = [np.asarray(Image.open(io.BytesIO(content))).astype(float).std() for content in files]
    assert spread[0] != spread[1]
    (tmp_path / "cut.png").write_bytes(files[1])
    (found,) = verify_files([str(tmp_path / "cut.png")], TrackingConfig(uri=store))
    assert (found["state"], found["mark"]["conditions"]) == ("confirmed", {"label": CLASSES[1]}), found


def test_variations_of_a_slice_are_drawn_and_confirmed(
    visitor: httpx2.Client, store: str, tmp_path: Path, tiny_dataset: Dataset
) -> None:
    row = {"model": "models:/asked/1", "dataset": tiny_dataset.version, "split": "test", "row": 1}
    source = visitor.post("/api/edit-sources", json=row).json()["id"]
    pictures = {}
    for strength in (0, 0.5):
        drawing = _drawn(visitor, address="/api/edits", count=1, source=source, strength=strength)
        pictures[strength] = visitor.get(f"/drawings/{drawing['id']}/0.png").content
    shown = {strength: np.asarray(Image.open(io.BytesIO(content))) for strength, content in pictures.items()}
    assert (shown[0] == tiny_dataset.images("test")[1]).all()
    assert (shown[0.5] != shown[0]).any()
    (tmp_path / "varied.png").write_bytes(pictures[0.5])
    given = source_of(f"{tiny_dataset.path}/test/1", None)
    (found,) = verify_files([str(tmp_path / "varied.png")], TrackingConfig(uri=store), None, given)
    assert (found["state"], found["mark"]["edit"]["strength"]) == ("confirmed", 0.5), found
    wanted = {"model": "models:/asked/1", "steps": 2, "source": source}
    assert "paint on the slice" in visitor.post("/api/edits", json=wanted).json()["error"]
    assert "strength" in visitor.post("/api/edits", json=wanted | {"strength": 2}).json()["error"]


def test_obedience_stands_in_the_registry_and_classes_beside_each_other(visitor: httpx2.Client) -> None:
    listed = visitor.get("/registry").text
    rows = [listed.split(f'/registry/asked/{number}">')[1].split("</tr>")[0] for number in (1, 2)]
    assert ["25.0 %" in row for row in rows] == [True, False]
    assert ["75.0 %" in row for row in rows] == [False, True]
    assert all("real slices 80.0 %" in row for row in rows)
    assert ["12.5 %" in row for row in rows] == [True, False]
    assert all("utility, from real slices 65.0 %" in row for row in rows)
    scored = visitor.get("/registry/compare?version=asked/1&version=asked/2").text.split("What they scored")[1]
    utility = scored.split("utility_<wbr>lite0")[1].split("</tr>")[0]
    assert "utility, more is better" in utility
    assert [value in utility for value in ("0.125", "0.375", "floor 0.8")] == [True] * 3
    table = visitor.get("/registry/compare?version=asked/1&version=asked/2").text.split("Class by class")[1]
    obeyed = table.split('data-of="obedience_lite0"')[1].split("</tbody>")[0]
    cells = [cell.split("<")[0] for cell in obeyed.replace("<b>", "").split('<td class="num">')[1:]]
    assert cells == ["0.25", "0.75", "0.9", "0.125", "0.375", "0.7"]
    taught = table.split('data-of="utility_lite0"')[1].split("</tbody>")[0]
    shown = [cell.split("<")[0] for cell in re.split('<td class="num"[^>]*>', taught.replace("<b>", ""))[1:]]
    assert shown == ["0.25", "0.75", "0.875", "0", "0", "0.0625 / 0.1875"]  # floors of the one and of the other
    assert "sensitivity" in taught
    assert table.index("obedience_lite0") < table.index("utility_lite0") < table.index("recall_lite0")
    assert "bright" not in table


def test_versions_are_drawn_class_by_class_where_both_know_classes(
    visitor: httpx2.Client, store: str, model_dir: Path, tiny_dataset: Dataset
) -> None:
    both = visitor.get("/api/versions/classes?version=asked/1&version=asked/2").json()
    assert both == {"condition": "label", "classes": list(tiny_dataset.label_names), "why": ""}
    wanted = {"count": 2 * len(both["classes"]), "conditions": {"label": dict.fromkeys(both["classes"], 1)}}
    drawings = [_drawn(visitor, model=f"asked/{number}", seed=5, **wanted) for number in (1, 2)]
    assert drawings[0]["asked"] == drawings[1]["asked"]
    assert Counter(asked["label"] for asked in drawings[0]["asked"]) == dict.fromkeys(both["classes"], 2)
    experiment = connect(store).get_experiment_by_name("asked").experiment_id
    with mlflow.start_run(experiment_id=experiment):
        registration._new_version(model_dir, "plain", {})
    for versions, condition in ((("asked/1", "plain/1"), None), (("plain/1", "asked/1"), None)):
        told = visitor.get("/api/versions/classes", params={"version": versions}).json()
        assert (told["condition"], told["classes"]) == (condition, [])
        assert told["why"].startswith("plain version 1 is told no class")
    alone = visitor.get("/api/versions/classes?version=plain/1&version=plain/1").json()
    assert alone == {"condition": None, "classes": [], "why": ""}


@in_browser
def test_classes_and_the_grid_are_chosen_on_the_page(page: Page, tiny_dataset: Dataset) -> None:
    names = tiny_dataset.label_names
    page.goto("/generate?model=asked/1")
    page.get_by_label("Steps").fill("2")
    page.locator("[data-condition=label]").select_option("=counts")
    for name, count in zip(names, (2, 1, 0, 0), strict=True):
        page.get_by_label(name.replace("_", " "), exact=True).fill(str(count))
    expect(page.get_by_label("Slices", exact=True)).to_have_value("3")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator(".beside li")).to_have_count(3)
    said = sorted(text.split("SSIM")[0].strip() for text in page.locator(".beside small").all_inner_texts())
    assert said == sorted(f"asked for {names[at].replace('_', ' ')}" for at in (0, 0, 1))
    page.get_by_label("Columns").fill("1, 3")
    page.get_by_label("In a cell").fill("2")
    page.get_by_role("button", name="Draw the grid").click()
    expect(page.locator(".grid thead th")).to_have_text(["class", "unguided2 calls", "guidance 34 calls"])
    rows = page.locator(".grid tbody tr")
    expect(rows).to_have_count(len(names))
    for row, name in zip(rows.all(), names, strict=True):
        assert row.locator("th").inner_text() == name.replace("_", " ")
        shown = row.locator("img").evaluate_all("images => images.map(image => image.alt)")
        assert len(shown) == 4
        assert all(alt.endswith(f", {name.replace('_', ' ')}") for alt in shown)
    photograph(page, "grid")
    page.goto("/registry/compare?version=asked/1&version=asked/2")
    page.get_by_label("Of each class").fill("2")
    page.get_by_label("Steps").fill("2")
    page.get_by_role("button", name="Draw from both").click()
    expect(page.locator("[data-state]")).to_contain_text("asked for the same class")
    rows = page.locator("[data-classes] tbody tr")
    assert rows.locator("th").all_inner_texts() == [name.replace("_", " ") for name in names]
    for row, name in zip(rows.all(), names, strict=True):
        sides = [
            row.locator(f"[data-side='{side}'] img").evaluate_all("all => all.map(image => [image.alt, image.src])")
            for side in (0, 1)
        ]
        assert [alt for alt, _ in sides[0]] == [alt for alt, _ in sides[1]]
        assert len(sides[0]) == 2
        assert all(alt.endswith(f"asked for {name.replace('_', ' ')}") for alt, _ in sides[0])
        pixels = [[_pixels(page.request.get(src).body()) for _, src in side] for side in sides]
        np.testing.assert_array_equal(*pixels)  # one network, twice: the same noise and the same class
    photograph(page, "versions-by-class")
    page.locator("[name=by]").select_option("any")
    expect(page.get_by_label("Slices", exact=True)).to_be_visible()
    expect(rows.first).to_be_hidden()


def test_of_a_model_with_a_guide_the_grid_leads_towards_the_classes(page: Page) -> None:
    page.goto("/generate?model=asked/1")
    expect(page.get_by_label("Columns")).to_have_value("1, 1.5, 2, 3")
    expect(page.get_by_label("Of the conditions")).to_be_hidden()  # guidance does that
    page.goto("/generate?model=guided/1")
    expect(page.get_by_label("Of the conditions")).to_be_visible()
    expect(page.get_by_label("Columns")).to_have_value("1, 3, 5")
    page.get_by_label("Steps").fill("2")
    page.get_by_label("Guidance", exact=True).fill("2")
    page.get_by_label("Columns").fill("1, 3")
    page.get_by_label("In a cell").fill("1")
    page.get_by_role("button", name="Draw the grid").click()
    heads = ["class", "of the conditions: none4 calls", "of the conditions 36 calls"]
    expect(page.locator(".grid thead th")).to_have_text(heads)
    photograph(page, "grid-by-guide")
    page.get_by_label("Of the conditions").fill("3")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator("[data-state]")).to_contain_text("guidance of the conditions 3, 6 network calls a slice")
