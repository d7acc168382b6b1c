"""The page of an audit: what its slices are good for beside how many are copies, or why that is not known."""

import html
import json
import math
import re
from pathlib import Path

import httpx2
import mlflow
import numpy as np
import pytest

from lwddpm.audit.result import AuditRecord, AuditResult
from lwddpm.audit.shares import share_of
from lwddpm.audit.utility.arms import Arm, arms
from lwddpm.audit.utility.learners import Fit, Slices
from lwddpm.audit.utility.result import UtilityResult, result_of
from lwddpm.config import AuditConfig, SamplingConfig, UtilityConfig
from lwddpm.kinds.audit.parts import NO_CLASSES
from lwddpm.tracking import attachments, registration, registry
from lwddpm.tracking.store import connect

from .test_conditional import board, store, workspace

__all__ = ["board", "store", "workspace"]  # fixtures
CLASSES = ("glioma_tumor", "none<b>")
_NUM = 40  # slices of each kind
HALF, ALL = "50 % 20 slices", "100 % 40 slices"  # rows of the mixtures


def utility() -> UtilityResult:
    """What two seeds of one learner have learnt, by mixture: see `_answers`."""
    config = UtilityConfig(learners=("logistic",), real_shares=(0.5, 1.0), synthetic_ratios=(0.0, 1.0, 2.0), seeds=2)
    labels = np.arange(_NUM) % 2
    slices = Slices(np.zeros((_NUM, 4, 4), np.uint8), labels, np.arange(_NUM), np.zeros((_NUM, 0), np.float32))
    fits = {arm: Fit(_answers(arm, labels), labels, 400) for arm in arms(config)}
    return result_of(fits, config, slices, slices, slices, CLASSES, SamplingConfig())


def _answers(arm: Arm, labels: np.ndarray) -> np.ndarray:
    """What is recognised: after half of the real slices 6 of 10, after all 8 of 10. One synthetic one for each of half
    brings that to 10, two for each of all to 0, one to 8; synthetic ones alone teach 7 of 10."""
    wrong = {(0.5, 0.0): 4, (1.0, 0.0): 2, (0.5, 1.0): 0, (1.0, 2.0): 10, (0.0, 1.0): 3}.get((arm.share, arm.ratio))
    if wrong is None:  # as the same real slices alone
        wrong = 4 if arm.share == 0.5 else 2
    return np.where(np.arange(_NUM) // 2 % 10 < wrong, 1 - labels, labels)


def audit(**changes: object) -> AuditResult:
    record = AuditRecord.of_share("copied_share", share_of(3, 100), "flagged", 0.5)
    return AuditResult(
        model="0" * 64, model_uri="models:/asked/1", dataset="d", code="1-0", date="2026-01-01T00:00:00+00:00",
        verdict="undecided", reasons=("too few",), explanation=("what it means",), records=(record,),
        thresholds={"correlation": 0.98}, power={"exact": record}, controls=(), by_class={"glioma": record},
        growth=((10, 0, 0), (100, 3, 2)), held_out_alarms=(), flagged=(), num_flagged=3, sampling=SamplingConfig(),
        simulated=True, known_subjects=False, settings=AuditConfig().model_dump(mode="json"),
    ).model_copy(update=changes)  # fmt: skip


def _page(visitor: httpx2.Client, result: AuditResult, model: str = "asked") -> str:
    """The page of an audit that is stored with version 1 of a model."""
    content = result.model_dump(mode="json")
    attachments.attach(registry.find_version(f"{model}/1"), attachments.AUDIT, content, "auditor")
    answer = visitor.get(f"/registry/{model}/1/audit")
    assert answer.status_code == 200
    return answer.text


def _rows(text: str) -> list[list[str]]:
    """Cells of a table's body as text."""
    body = text.split("<tbody>")[1].split("</tbody>")[0]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in body.split("<tr>")[1:]]
    return [[" ".join(html.unescape(re.sub(r"<[^>]+>", " ", cell)).split()) for cell in row] for row in cells]


def test_what_slices_teach_stands_by_mixture_and_class_beside_the_copied_share(visitor: httpx2.Client) -> None:
    result = audit(utility=utility(), parts=("memorisation", "utility"))
    section = _page(visitor, result).split('id="utility"')[1].split("</section>")[0]
    assert "Copied share 3.00% (0.62% to 8.52%, n = 100), verdict undecided" in section
    mixtures, sensitivities = section.split("<h4>")
    rows = {tuple(row[:2]): row[2:] for row in _rows(mixtures)}
    assert set(rows) == {
        ("none", "alone 40"), (HALF, "0"), (HALF, "1 20"), (HALF, "2 40"), (ALL, "0"),
        (ALL, "1 40"), (ALL, "2 80"),
    }  # fmt: skip
    accuracy = {key: row[0].split()[0] for key, row in rows.items()}
    assert accuracy["none", "alone 40"] == "0.700"
    assert accuracy[HALF, "0"] == "0.600"
    assert accuracy[HALF, "1 20"] == "1.000"
    assert accuracy[ALL, "2 80"] == "0.000"
    assert [rows[key][4] for key in ((HALF, "1 20"), (ALL, "2 80"), (ALL, "1 40"))] == [
        "help", "harm", "not shown",
    ]  # fmt: skip
    assert rows[HALF, "1 20"][2].startswith("+0.400")
    assert float(rows[HALF, "1 20"][3]) < 0.05 < float(rows[ALL, "1 40"][3])
    assert rows["none", "alone 40"][2:5] == ["–", "–", "–"]
    assert rows["none", "alone 40"][5] == "28"  # halfway between 0.6 of 20 and 0.8 of 40, on a scale of ratios
    shown = _rows(sensitivities)
    assert shown[0] == ["none", "alone", "0.70", "0.70"]
    assert "none&lt;b&gt;" in sensitivities
    assert "worth 28 real slices alone; the cross is where" in mixtures
    (curve,) = re.findall(r'data-utility="([^"]*)"', section)
    lines = {line["name"]: line for line in json.loads(html.unescape(curve))}
    mixed = [f"and {ratio} synthetic for each" for ratio in (1, 2)]
    assert list(lines) == ["real slices alone", *mixed, "40 synthetic slices alone", "chance"]
    assert lines["40 synthetic slices alone"]["crosses"] == [[pytest.approx(math.sqrt(20 * 40)), pytest.approx(0.7)]]
    assert [point[:2] for point in lines["real slices alone"]["points"]] == [
        [20, pytest.approx(0.6)],
        [40, pytest.approx(0.8)],
    ]
    assert lines["chance"]["points"] == [[20, 0.5], [40, 0.5]]


def test_without_utility_the_page_says_why_and_what_to_do(visitor: httpx2.Client, store: str, model_dir: Path) -> None:
    text = _page(visitor, audit())  # of a model with classes
    assert "This audit was made without it" in text
    assert "lwddpm run audit --set model_uri=models:/asked/1" in text
    experiment = connect(store).get_experiment_by_name("asked").experiment_id
    with mlflow.start_run(experiment_id=experiment):
        registration._new_version(model_dir, "plain", {})
    assert NO_CLASSES.partition(";")[0] in _page(visitor, audit(), "plain")  # of one without, by an earlier version
    assert "jobs/kaggle_conditional.yaml" in NO_CLASSES
    assert "--set model_uri=models:/plain/1" not in visitor.get("/registry/plain/1/audit").text  # it would not help
    assert "Utility is gone; find it" in _page(visitor, audit(not_measured={"utility": "is gone; find it"}), "plain")


def test_a_version_without_an_audit_says_how_it_gets_one(visitor: httpx2.Client) -> None:
    advice = "lwddpm run audit --set model_uri=models:/asked/2"
    assert advice in visitor.get("/registry/asked/2").text
    answer = visitor.get("/registry/asked/2/audit")
    assert answer.status_code == 404
    assert advice in answer.text


@pytest.mark.parametrize("verdict", ["help", "harm", "not shown"])
def test_a_verdict_needs_significance_after_holm(verdict: str) -> None:
    arm = next(arm for arm in utility().learners[0].arms if arm.verdict == verdict)
    assert arm.gain is not None
    assert arm.p_adjusted is not None
    assert (arm.p_adjusted < 0.05) == (verdict != "not shown")
    assert verdict != "help" or arm.gain.value > 0
    assert verdict != "harm" or arm.gain.value < 0
