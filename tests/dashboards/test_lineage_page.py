"""Lineage on the board: what a dataset has led to, and what holds a subject, a file or a picture."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image
from playwright.sync_api import Browser, expect
from starlette.testclient import TestClient

from lwddpm.data.store import Dataset
from lwddpm.tracking.lineage import made_from
from lwddpm.tracking.registry import WITHDRAWN
from lwddpm.tracking.store import connect
from lwddpm_board.access import Access
from lwddpm_board.app import create_app
from lwddpm_board.stores import Stores

from .browser import in_browser, photograph, visited
from .conftest import serving


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, tiny_dataset: Dataset) -> str:
    """A run and a withdrawn version of a dataset, a run and a version of another, and samples of the first."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client: MlflowClient = connect(uri)
    experiment = client.create_experiment("e", artifact_location=str(tmp_path / "artifacts"))
    for name, version, path in (("held", tiny_dataset.version, tiny_dataset.path), ("other", "0" * 16, "/nowhere")):
        tags = {"lwddpm.dataset_version": version, "lwddpm.dataset_path": path, "lwddpm.kind": "train"}
        run = client.create_run(experiment, run_name=f"train-{name}", tags=tags)
        client.set_terminated(run.info.run_id)
        client.create_registered_model(name)
        client.create_model_version(name, str(tmp_path), run.info.run_id, tags=tags)
    tags = {"lwddpm.dataset_version": tiny_dataset.version, "lwddpm.dataset_path": tiny_dataset.path}
    client.create_run(experiment, run_name="audit-of-held", tags=tags | {"lwddpm.kind": "audit"})
    client.set_model_version_tag("held", "1", WITHDRAWN, json.dumps({"entries": 2}))
    about = {"model": {"dataset_version": tiny_dataset.version}, "drawn_by": "models:/held/1", "count": 7}
    (tmp_path / "drawn-of-held").mkdir()
    (tmp_path / "drawn-of-held" / "samples.json").write_text(json.dumps(about))
    return uri


@pytest.fixture
def stores(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stores:
    monkeypatch.chdir(tmp_path)  # where sample sets are looked for
    return Stores(store, f"sqlite:///{tmp_path}/optuna.db", (), tmp_path)


@pytest.fixture
def visitor(stores: Stores) -> Iterator[TestClient]:
    board = create_app(stores, Access(None, frozenset({"127.0.0.1"})))
    with TestClient(board, base_url="http://127.0.0.1") as client:
        yield client


def test_a_dataset_tells_what_was_made_from_it(visitor: TestClient, tiny_dataset: Dataset) -> None:
    found = made_from(tiny_dataset.version)
    trained = {run["name"]: run["trained_on"] for run in found["runs"]}
    assert trained == {"train-held": True, "audit-of-held": False}
    assert [(each["uri"], each["withdrawn"]) for each in found["versions"]] == [("models:/held/1", 2)]
    text = visitor.get(f"/datasets/{tiny_dataset.version}/lineage").text
    assert "train-held" in text
    assert 'href="/registry/held/1"' in text
    assert 'title="its dataset holds slices of 2 withdrawn subjects or files"' in text
    assert "drawn-of-held" in text.replace("<wbr>", "")
    assert "other" not in text
    assert f'href="/datasets/{tiny_dataset.version}/lineage"' in visitor.get(f"/datasets/{tiny_dataset.version}").text
    gone = visitor.get(f"/datasets/{'0' * 16}/lineage").text  # its folder is not there any more
    assert "train-other" in gone
    assert visitor.get(f"/datasets/{'1' * 16}/lineage").status_code == 404


def test_a_file_and_a_picture_are_found_and_nothing_of_them_is_kept(
    visitor: TestClient, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    def sought(**wanted: str) -> Any:
        return visitor.post("/api/lineage", json=wanted)

    source = tiny_dataset.sources("train")[3]
    html = sought(file=source).json()["html"]
    assert f"/datasets/{tiny_dataset.version}/train/3.png" in html
    assert "train: file" in html
    assert 'href="/registry/held/1"' in html
    assert "trained on them" in html
    assert "Not looked at" in html  # the other dataset is gone
    picture = _png(tiny_dataset.images("validation")[0])
    html = sought(picture=base64.b64encode(picture).decode()).json()["html"]
    assert f"/datasets/{tiny_dataset.version}/validation/0.png" in html
    assert "validation: exact 1" in html
    assert "not in its training split" in html
    assert "holds it" in sought(file="<b>no such</b>").json()["html"]
    refused = sought(picture=base64.b64encode(b"not an image").decode())
    assert str(tmp_path) not in refused.text
    assert refused.status_code == 422 or "Not looked at" in refused.text
    assert "give one of" in sought().json()["error"]
    assert "give one of" in sought(file="a", subject="b").json()["error"]
    assert not list(tmp_path.glob("upload-*"))


@in_browser
def test_a_file_is_looked_up_on_the_page(stores: Stores, tiny_dataset: Dataset, browser: Browser) -> None:
    source = tiny_dataset.sources("train")[0]
    with serving(stores) as board, visited(browser, board.url) as page:
        page.goto("/datasets")
        page.get_by_role("link", name="Look a subject, a file or a picture up").click()
        page.get_by_label("or file").fill(source)
        page.get_by_role("button", name="Look up").click()
        expect(page.locator("[data-found] .sheet li")).to_have_count(1)
        assert source not in page.url
        photograph(page, "lineage")
        page.get_by_label("or picture").set_input_files(
            {"name": "x.png", "mimeType": "image/png", "buffer": _png(tiny_dataset.images("test")[0])}
        )
        expect(page.get_by_label("or file")).to_have_value("")
        page.get_by_role("button", name="Look up").click()
        expect(page.locator("[data-found] .sheet li").first).to_contain_text("exact")
        page.get_by_role("link", name=tiny_dataset.version[:8]).first.click()
        expect(page.get_by_role("heading", name="What was made from it")).to_be_visible()
        photograph(page, "dataset-lineage")


def _png(image: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()
