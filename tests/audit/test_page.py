"""What an audit leaves: a file that is read as it was written, and pages that say what is in it."""

from pathlib import Path

import numpy as np

from lwddpm.audit import page
from lwddpm.audit.canaries import KINDS
from lwddpm.audit.result import FILE, AuditRecord, AuditResult, FlaggedPair, MixedControl
from lwddpm.audit.shares import share_of
from lwddpm.config import AuditConfig, SamplingConfig


def _result() -> AuditResult:
    record = AuditRecord.of_share("copied_share", share_of(3, 100), "flagged", 0.5)
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
        held_out_alarms=(pair.model_copy(update={"name": "h.png"}),),
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
    page.draw(
        result,
        folder,
        [(image, image, result.flagged[0])],
        [(image, image, result.held_out_alarms[0])],
        draw.uniform(0, 0.99, 100),
        draw.uniform(0, 0.99, 300),
        planted,
    )
    assert AuditResult.model_validate_json((folder / FILE).read_bytes()) == result
    assert (np.load(folder / page.PICTURES, allow_pickle=False) == image[None]).all()
    html, markdown = (folder / page.HTML).read_text(), (folder / page.MARKDOWN).read_text()
    for text in (html, markdown):
        assert "undecided" in text
        assert "copied_share" in text
        assert "0.0062 to 0.0852" in text  # Clopper and Pearson of 3 in 100
        assert "does not say whom its slices show" in text
    assert "too few &lt;slices&gt;" in html
    assert html.count("data:image/png;base64,") == 5
    assert {path.stem for path in (folder / "figures").iterdir()} == {"pairs", "scores", "power", "growth", "held_out"}
