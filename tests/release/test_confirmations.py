"""Flagged pairs of an audit: what people say of them is an entry of the log, and is there again after a reload."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image
from playwright.sync_api import Page, expect
from starlette.testclient import TestClient
from typer.testing import CliRunner

from lwddpm.audit.page import PICTURES
from lwddpm.audit.result import AuditRecord, AuditResult, FlaggedPair, MixedControl
from lwddpm.audit.shares import share_of
from lwddpm.cli import app
from lwddpm.cluster.generate import draw_indices
from lwddpm.cluster.session import Session
from lwddpm.config import AuditConfig, SamplingConfig, TrackingConfig, WorkersConfig
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.kinds.verify import verify_files
from lwddpm.marks.edited import pixels_sha256
from lwddpm.release import confirmations, dossier, wording
from lwddpm.release.log_check import check_log
from lwddpm.tracking import attachments, registry_log
from lwddpm.tracking.registry import WEIGHTS, RegisteredVersion
from lwddpm_board.access import Access
from lwddpm_board.app import create_app
from lwddpm_board.stores import Stores

from ..dashboards.browser import in_browser, photograph
from .test_board import board, browser, page  # noqa: F401

Make = Callable[..., RegisteredVersion]
SAMPLING = SamplingConfig(num_inference_steps=2, precision="fp32", start="noise", seed=4)
INDICES = (3, 0, 5)


@pytest.fixture
def flagged(register: Make, tiny_dataset: Dataset, model_dir: Path, tmp_path: Path) -> Callable[[str], AuditResult]:
    """A version whose audit has flagged three of the slices that it draws, with the run that the audit was."""

    def make(name: str) -> AuditResult:
        version = register(name)
        sources = tiny_dataset.sources("train")

        def pair(index: int, place: int, held_out: str | None = None) -> FlaggedPair:
            return FlaggedPair(
                index=index, name=held_out, source=sources[place], subject=None, correlation=0.99 - place / 100,
                features=0.5, by=("correlation",), moved="mirrored",
            )  # fmt: skip

        flagged, alarms = share_of(3, 100), share_of(1, 300)
        result = AuditResult(
            model=version.tags[WEIGHTS], model_uri=f"models:/{name}/1", dataset=tiny_dataset.version, code="1-0",
            date="2026-01-01T00:00:00+00:00", verdict="copies", reasons=("3 of 100 <slices> are flagged",),
            explanation=("It copies.",),
            records=(
                AuditRecord.of_share("copied_share", flagged, "flagged", 0.001),
                AuditRecord.of_share("false_alarm_share", alarms, "false alarms"),
            ),
            thresholds={"correlation": 0.9},
            by_class={"no_tumor": AuditRecord.of_share("no_tumor", flagged, "flagged")},
            power={"exact": AuditRecord.of_share("exact", share_of(20, 20), "found")},
            controls=(MixedControl(kind="exact", planted=0.05, flagged=0.08, low=0.04, high=0.1, verdict="copies"),),
            growth=((10, 0, 0), (100, 3, 2)), held_out_alarms=(pair(0, 0, tiny_dataset.sources("validation")[0]),),
            flagged=tuple(pair(index, place) for place, index in enumerate(INDICES)), num_flagged=3,
            sampling=SAMPLING, simulated=True, known_subjects=False, settings=AuditConfig().model_dump(mode="json"),
        )  # fmt: skip
        attachments.attach(version, attachments.AUDIT, result.model_dump(mode="json"), "auditor")
        folder, client = tmp_path / "audit", MlflowClient()
        folder.mkdir()
        (folder / "audit.json").write_text(result.model_dump_json())
        with Session(WorkersConfig(count=1)) as session:
            np.save(folder / PICTURES, draw_indices(model_dir, SAMPLING, list(INDICES), session))
        tags = {"lwddpm.kind": "audit", "lwddpm.dataset_version": tiny_dataset.version}
        tags |= {"lwddpm.dataset_path": tiny_dataset.path}
        run = client.create_run(client.get_run(version.run_id).info.experiment_id, tags=tags).info.run_id
        client.log_artifacts(run, str(folder), "audit")
        client.set_terminated(run)
        return result

    return make


def _visitor(store: str, tmp_path: Path) -> TestClient:
    stores = Stores(store, f"sqlite:///{tmp_path}/optuna.db", (), tmp_path)
    return TestClient(create_app(stores, Access(None, frozenset({"127.0.0.1"}))), base_url="http://127.0.0.1")


def test_decisions_are_entries_of_the_log_and_survive_another_audit(flagged: Any, name: str, store: str) -> None:
    from lwddpm.tracking.registry import find_version

    result, version = flagged(name), find_version(f"{name}/1")
    assert confirmations.tally(version) == {"confirmed": 0, "rejected": 0, "open": 3}
    for index, decision in ((3, "confirmed"), (0, "confirmed"), (0, "rejected"), (5, "rejected"), (5, "open")):
        confirmations.decide(version, result, "a" * 64, index, decision, "ada", "b" * 64)
    made = confirmations.decisions(version, result)
    assert {index: (one.decision, one.by) for index, one in made.items()} == {
        3: ("confirmed", "ada"), 0: ("rejected", "ada"),
    }  # fmt: skip
    assert confirmations.tally(version) == {"confirmed": 1, "rejected": 1, "open": 1}
    people = dossier.contents(version)["people"]
    assert people["flagged pairs"] == "1 confirmed as copies, 1 rejected, 1 not judged"
    shown = CliRunner().invoke(app, ["models", "show", f"models:/{name}/1", "--tracking-uri", store])
    assert "flagged pairs of its audit: 1 confirmed, 1 rejected, 1 open" in shown.output
    told = [wording.told(entry) for entry in registry_log.entries(name) if entry["kind"] == "confirmation"]
    assert told[0] == f"drawn slice 3 is a copy of {result.flagged[0].source}"
    assert check_log(name, None, [])["whole"]
    with pytest.raises(ConfigError, match="must be that of a flagged pair"):
        confirmations.decide(version, result, "a" * 64, 4, "confirmed", "ada", "b" * 64)
    with pytest.raises(ConfigError, match="must be given"):
        confirmations.decide(version, result, "a" * 64, 3, "confirmed", " ", "b" * 64)

    later = result.model_copy(update={"code": "2-0", "date": "2026-02-01T00:00:00+00:00"})
    assert confirmations.decisions(version, later) == made
    other_slices = result.model_copy(update={"sampling": SAMPLING.model_copy(update={"seed": 5})})
    assert confirmations.decisions(version, other_slices) == {}
    other_pair = result.flagged[0].model_copy(update={"source": "another.png"})
    assert confirmations.decisions(version, result.model_copy(update={"flagged": (other_pair,)})) == {}


def test_the_board_keeps_who_said_what_of_which_pixels(
    flagged: Any, name: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = flagged(name)
    with _visitor(store, tmp_path) as visitor:
        text = visitor.get(f"/registry/{name}/1/audit").text
        assert "3 of 100 &lt;slices&gt; are flagged" in text
        sha256 = text.split('data-audit="')[1][:64]
        picture = visitor.get(f"/registry/{name}/1/audits/{sha256}/3.png")
        assert visitor.get(f"/registry/{name}/1/audits/{sha256}/4.png").status_code == 404
        assert visitor.get(f"/registry/{name}/1/audits/{'0' * 64}/3.png").status_code == 404
        wanted = {"name": name, "version": 1, "audit": sha256, "index": 3, "decision": "confirmed", "by": "ada"}
        assert visitor.post("/api/registry/judge", json=wanted | {"audit": "0" * 64}).status_code == 404
        assert visitor.post("/api/registry/judge", json=wanted | {"by": " "}).status_code == 422
        assert visitor.post("/api/registry/judge", json=wanted | {"decision": "maybe"}).status_code == 422
        assert not [entry for entry in registry_log.entries(name) if entry["kind"] == "confirmation"]
        foreign = visitor.post("/api/registry/judge", json=wanted, headers={"origin": "http://elsewhere"})
        assert foreign.status_code == 403
        assert visitor.post("/api/registry/judge", json=wanted).json()["by"] == "ada"
        assert "drawn slice 3 is a copy of" in visitor.get(f"/registry/{name}/log").text
    entry = registry_log.entries(name)[-1]
    image = np.asarray(Image.open(io.BytesIO(picture.content)))
    assert entry["data"]["pixels_sha256"] == pixels_sha256(image)
    assert (entry["data"]["audit"], entry["data"]["source"]) == (sha256, result.flagged[0].source)
    (tmp_path / "flagged.png").write_bytes(picture.content)
    (found,) = verify_files([str(tmp_path / "flagged.png")], TrackingConfig(uri=store))
    assert found["state"] == "confirmed", found
    assert "seed 4, index 3" in found["message"]


@in_browser
def test_pairs_are_judged_with_keys_and_found_judged_again(flagged: Any, name: str, page: Page) -> None:  # noqa: F811
    flagged(name)
    page.goto(f"/registry/{name}/1")
    page.get_by_role("link", name="Audit: copies").click()
    expect(page.get_by_text("Pair 1 of 3")).to_be_visible()
    page.keyboard.press("c")
    expect(page.get_by_role("alert")).to_contain_text("Say who you are")
    page.get_by_label("Your name").fill("Ada")
    page.keyboard.press("c")  # within the field it is a letter
    expect(page.get_by_label("Your name")).to_have_value("Adac")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("heading", name="Flagged pairs").click()
    page.keyboard.press("c")
    expect(page.get_by_text("Pair 2 of 3")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("Pair 3 of 3")).to_be_visible()
    page.get_by_role("button", name="No copy").click()
    expect(page.locator("[data-tally]")).to_contain_text("1 copy, 1 not, 1 open")
    page.reload()
    expect(page.get_by_text("Pair 2 of 3")).to_be_visible()  # the first that is open
    expect(page.locator("[data-list] small")).to_have_text(["copy", "open", "no copy"])
    page.keyboard.press("ArrowLeft")
    expect(page.locator("[data-decided]")).to_contain_text("by Ada, 20")
    assert page.locator("[data-training]").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    photograph(page, "audit")
    page.keyboard.press("u")
    expect(page.locator("[data-tally]")).to_contain_text("0 copies, 1 not, 2 open")
    kinds = [(entry["data"]["decision"], entry["by"]) for entry in registry_log.entries(name)[1:]]
    assert kinds == [("confirmed", "Ada"), ("rejected", "Ada"), ("open", "Ada")]
