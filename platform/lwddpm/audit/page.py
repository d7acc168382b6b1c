"""An audit on disk: `audit.json`, and one HTML file and one of Markdown that are drawn from it.

figures/KEY.png; audit.html has them inside and needs nothing else
flagged.npy; the slices that were flagged, for a person to judge on the board
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from lwddpm.audit import figures
from lwddpm.audit.figures import Pictured
from lwddpm.audit.result import FILE, AuditRecord, AuditResult
from lwddpm.evaluation.figure_style import LIGHT, render
from lwddpm.files import complete_folder, write_whole
from lwddpm.wording import measured

HTML, MARKDOWN = "audit.html", "audit.md"
PICTURES = "flagged.npy"  # of all flagged pairs the slices drawn, in their order, uint8 [N, S, S]
_PICTURED = 24  # pairs in a figure
_TEMPLATES = Path(__file__).with_name("templates")


def draw(
    result: AuditResult,
    folder: Path,
    drawn: Sequence[Pictured],
    held_out: Sequence[Pictured],
    scores: np.ndarray,
    held_out_scores: np.ndarray,
    planted_scores: Mapping[str, np.ndarray],
) -> None:
    """Write everything into a folder, replacing what an earlier audit left there.

    Args:
        drawn: all flagged pairs of `result`; held_out: the first ones of held-out slices.
        scores, held_out_scores, planted_scores: correlations of the slices drawn, held out, and planted by kind.
    """
    drawings: list[tuple[str, str, Callable[[], Figure]]] = []
    pictured = drawn[:_PICTURED]
    if pictured:
        caption = (
            f"The {len(pictured)} flagged slices with the highest correlation, of {result.num_flagged:,}; above each "
            "pair its correlation and the cosine of its features. For a person to look at."
        )
        drawings.append(
            ("pairs", caption, lambda: figures.pairs(pictured, "Flagged slices", "drawn by the model", LIGHT))
        )
    drawings += [
        (
            "scores",
            "Real slices that the model never saw set the threshold; planted copies show what lies beyond it.",
            lambda: figures.scores(scores, held_out_scores, planted_scores, result.thresholds["correlation"], LIGHT),
        ),
        (
            "power",
            "Planted copies found, by kind. Dashed: what the verdict clear asks of every kind but combined.",
            lambda: figures.power(result, LIGHT),
        ),
        ("growth", "What more drawing brings.", lambda: figures.growth(result, LIGHT)),
    ]
    if held_out:
        caption = (
            "False alarms: real held-out slices that the rule flags. If a pair shows the same picture, preparation has "
            "missed a duplicate: name it in audit.not_held_out."
        )
        drawings.append(
            ("held_out", caption, lambda: figures.pairs(held_out, "False alarms", "a real held-out slice", LIGHT))
        )
    with complete_folder(folder) as partial:
        (partial / "figures").mkdir()
        shown = [(key, caption, _png(make, partial / "figures" / f"{key}.png")) for key, caption, make in drawings]
        write_whole(partial / FILE, result.model_dump_json(indent=2))
        if drawn:
            np.save(partial / PICTURES, np.stack([slice_ for slice_, _, _ in drawn]))
        view = {"result": result, "figures": shown, "rows": [_row(record) for record in result.records]}
        view["power"] = [_row(record, kind) for kind, record in result.power.items()]
        view["classes"] = [_row(record) for record in result.by_class.values()]
        view["mixtures"] = _mixtures(result)
        for file, escape in ((HTML, True), (MARKDOWN, False)):
            environment = Environment(
                loader=FileSystemLoader(_TEMPLATES),
                autoescape=escape,
                undefined=StrictUndefined,
                trim_blocks=True,
                lstrip_blocks=True,
            )
            write_whole(partial / file, environment.get_template(file).render(view))


def _png(make: Callable[[], Figure], path: Path) -> str:
    """Draw a figure and write it; returns it in base64."""
    content = render(lambda theme: make(), LIGHT)
    path.write_bytes(content)
    return base64.b64encode(content).decode()


def _row(record: AuditRecord, name: str | None = None) -> dict[str, str]:
    ends = None if record.low is None or record.high is None else (record.low, record.high)
    return {
        "name": name or record.name,
        "value": measured(record.value, 4),
        "interval": "-" if ends is None else f"{measured(ends[0], 4)} to {measured(ends[1], 4)}",
        "n": f"{record.n:,}",
        "p": "-" if record.p_value is None else f"{record.p_value:.2g}",
        "what": record.what,
    }


def _mixtures(result: AuditResult) -> list[tuple[str, list[str]]]:
    """Rows by kind: the flagged share and the verdict for each share of planted copies."""
    kinds = dict.fromkeys(control.kind for control in result.controls)
    return [
        (kind, [f"{control.flagged:.1%}, {control.verdict}" for control in result.controls if control.kind == kind])
        for kind in kinds
    ]
