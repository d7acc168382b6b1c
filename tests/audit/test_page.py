"""What an audit leaves: a file that is read as it was written, and pages that say what is in it."""

import re
from pathlib import Path

import numpy as np

from lwddpm.audit import page
from lwddpm.audit.canaries import KINDS
from lwddpm.audit.result import FILE, AuditRecord, AuditResult, FlaggedPair, MixedControl, without_memorisation
from lwddpm.audit.shares import share_of
from lwddpm.audit.utility.arms import arms
from lwddpm.audit.utility.learners import Fit, Slices
from lwddpm.audit.utility.result import UtilityResult, result_of
from lwddpm.config import AuditConfig, SamplingConfig, UtilityConfig


def _result() -> AuditResult:
    record = AuditRecord.of_share("copied_share", share_of(3, 100), "flagged", 0.5, 1 / 300)
    alarms = AuditRecord.of_share("false_alarm_share", share_of(1, 300), "false alarms")
    pair = FlaggedPair(
        index=4,
        name=None,
        source="a<b>.png",
        subject=None,
        correlation=0.99,
        features=0.5,
        by=("correlation",),
        moved="as it is",
    )
    return AuditResult(
        model="0" * 64,
        model_uri="models:/m/1",
        dataset="d",
        code="1-0",
        date="2026-01-01T00:00:00+00:00",
        verdict="undecided",
        reasons=("too few <slices>",),
        explanation=("what it means",),
        records=(record, alarms),
        thresholds={"correlation": 0.98, "features": 0.95},
        power={kind: AuditRecord.of_share(kind, share_of(19, 20), "found") for kind in KINDS},
        controls=tuple(
            MixedControl(kind="exact", planted=share, flagged=share, low=0.0, high=1.0, verdict="copies")
            for share in (0.01, 0.05, 0.2)
        ),
        by_class={"glioma": record},
        growth=((10, 0, 0), (100, 3, 2)),
        held_out_alarms=(pair.model_copy(update={"name": "h.png", "by": ()}),),
        flagged=(pair,),
        num_flagged=3,
        sampling=SamplingConfig(),
        simulated=False,
        known_subjects=False,
        settings=AuditConfig().model_dump(mode="json"),
    )


def test_the_pages_say_what_the_file_holds(tmp_path: Path) -> None:
    result, folder = _result(), tmp_path / "report"
    draw = np.random.default_rng(0)
    image = draw.integers(0, 255, (16, 16)).astype(np.uint8)
    planted = {kind: draw.uniform(0.9, 1, 20) for kind in KINDS}
    drawings = page.memorisation(
        result,
        [(image, image, result.flagged[0])],
        [(image, image, result.held_out_alarms[0])],
        draw.uniform(0, 0.99, 100),
        draw.uniform(0, 0.99, 300),
        planted,
    )
    page.draw(result, folder, drawings, image[None])
    assert AuditResult.model_validate_json((folder / FILE).read_bytes()) == result
    assert (np.load(folder / page.PICTURES, allow_pickle=False) == image[None]).all()
    html, markdown = (folder / page.HTML).read_text(), (folder / page.MARKDOWN).read_text()
    for text in (html, markdown):
        assert "undecided" in text
        assert "copied_share" in text
        assert "0.0062 to 0.0852" in text  # Clopper and Pearson of 3 in 100
        assert "does not say whom its slices show" in text
    assert "too few &lt;slices&gt;" in html
    for name, by in (("number 4", "correlation"), ("h.png", "the lower threshold of one half")):
        row = [name, "a&lt;b&gt;.png", "-", "0.9900", "0.500", by, "as it is"]  # named: a person is to judge them
        assert re.search(r"<tr>\s*" + "".join(f"<td[^>]*>{re.escape(cell)}</td>" for cell in row), html), row
    assert "| h.png | a<b>.png | - | 0.9900 | 0.500 | the lower threshold of one half | as it is |" in markdown
    assert "| copied_share | 0.0300 | 0.0062 to 0.0852 | 100 | 0.00333 | 0.5 | flagged |" in markdown  # null, p
    assert html.count("data:image/png;base64,") == 5
    assert {path.stem for path in (folder / "figures").iterdir()} == {"pairs", "scores", "power", "growth", "held_out"}


def _utility() -> UtilityResult:
    """Real slices that are recognised in 8 of 10 cases, synthetic ones that teach chance."""
    config = UtilityConfig(learners=("logistic",), real_shares=(0.5, 1.0), synthetic_ratios=(0.0, 1.0), seeds=2)
    labels = np.arange(40) % 2
    slices = Slices(np.zeros((40, 4, 4), np.uint8), labels, np.arange(40), np.zeros((40, 0), np.float32))
    right = np.where(np.arange(40) // 2 % 5 < 4, labels, 1 - labels)
    chance = np.where(np.arange(40) // 2 % 2, labels, 1 - labels)
    fits = {arm: Fit(right if arm.share else chance, labels, 0) for arm in arms(config)}
    return result_of(fits, config, slices, slices, slices, ("glioma", "none<b>"), SamplingConfig())


def test_utility_stands_beside_the_copied_share(tmp_path: Path) -> None:
    result = _result().model_copy(update={"utility": _utility(), "parts": ("memorisation", "utility")})
    page.draw(result, tmp_path / "report", [])
    assert AuditResult.model_validate_json((tmp_path / "report" / FILE).read_bytes()) == result
    html, markdown = ((tmp_path / "report" / name).read_text() for name in (page.HTML, page.MARKDOWN))
    for text in (html, markdown):
        assert "balanced accuracy 0.800" in text
        assert "From 40 synthetic slices alone: 0.500" in text
        assert "Copied share 3.00% (0.62% to 8.52%, n = 100), verdict undecided" in text
        assert "Cross:" not in text  # worth fewer real slices than were tried: the figure has none
    assert "none&lt;b&gt;" in html
    assert (tmp_path / "report" / "figures" / "utility.png").stat().st_size > 1000


def test_what_was_not_measured_is_said_with_its_remedy(tmp_path: Path) -> None:
    why = "takes a model with classes; train one"
    page.draw(_result().model_copy(update={"not_measured": {"utility": why}}), tmp_path / "report", [])
    for name in (page.HTML, page.MARKDOWN):
        assert f"Not measured: utility, which {why}." in (tmp_path / "report" / name).read_text()


def test_without_memorisation_there_is_no_copied_share_and_no_verdict(tmp_path: Path) -> None:
    known = _result().model_dump(include={"model", "model_uri", "dataset", "code", "date", "simulated"})
    result = without_memorisation(
        ("utility",),
        sampling=SamplingConfig(),
        known_subjects=True,
        settings=AuditConfig().model_dump(mode="json"),
        **known,
    )
    page.draw(result.model_copy(update={"utility": _utility()}), tmp_path / "report", [])
    html = (tmp_path / "report" / page.HTML).read_text()
    assert "Verdict: undecided" in html
    assert "Copied share: not measured; copies make any generator look useful" in html
    assert "Planted copies" not in html
    assert "Controls" not in html
