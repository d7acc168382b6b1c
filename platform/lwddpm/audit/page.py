"""An audit on disk: `audit.json`, and one HTML file and one of Markdown that are drawn from it.

figures/KEY.png; audit.html has them inside and needs nothing else
flagged.npy; the slices that were flagged, for a person to judge on the board
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lwddpm.audit import figures
from lwddpm.audit.figures import Pictured
from lwddpm.audit.result import FILE, AuditRecord, AuditResult, FlaggedPair
from lwddpm.audit.utility import figures as utility_figures
from lwddpm.audit.utility.result import ArmResult, UtilityResult
from lwddpm.evaluation.figure_style import LIGHT, render
from lwddpm.evaluation.snapshot_figure import SnapshotPoint, quality_and_copying
from lwddpm.files import complete_folder, write_whole
from lwddpm.templates import template_environment
from lwddpm.wording import measured

HTML, MARKDOWN = "audit.html", "audit.md"
UTILITY = "utility"  # the figure
PICTURES = "flagged.npy"  # of all flagged pairs the slices drawn, in their order, uint8 [N, S, S]
_TEMPLATES = Path(__file__).with_name("templates")


Drawing = tuple[str, str, Callable[[], Figure]]  # name, caption, and how it is drawn


def memorisation(
    result: AuditResult,
    drawn: Sequence[Pictured],
    held_out: Sequence[Pictured],
    scores: np.ndarray,
    held_out_scores: np.ndarray,
    planted_scores: Mapping[str, np.ndarray],
) -> list[Drawing]:
    """The figures of this part.

    Args:
        drawn, held_out: the first flagged pairs of slices drawn, and of held-out slices.
        scores, held_out_scores, planted_scores: correlations of the slices drawn, held out, and planted by kind.
    """
    drawings: list[Drawing] = []
    if drawn:
        caption = (
            f"The {len(drawn)} flagged slices with the highest correlation, of {result.num_flagged:,}; above each pair "
            "its correlation and the cosine of its features. For a person to look at."
        )
        drawings.append(("pairs", caption, lambda: figures.pairs(drawn, "Flagged slices", "drawn by the model", LIGHT)))
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
    if result.snapshots:
        alarms = result.record("false_alarm_share")
        points = [SnapshotPoint(s.epoch, s.fd_lite0, s.copied_share, (s.low, s.high)) for s in result.snapshots]
        caption = (
            "The snapshots of the training, and the model at its end, drawn from noise without guidance. Dotted: false "
            "alarms. Where the distance falls while copies rise, slices are learnt by heart."
        )
        floor, n = None if alarms is None else alarms.value, result.snapshots[0].n
        drawings.append(("snapshots", caption, lambda: quality_and_copying(points, floor, "fd_lite0", n, LIGHT)))
    if held_out:
        caption = (
            "False alarms: real held-out slices that the rule flags. If a pair shows the same picture, preparation has "
            "missed a duplicate: name it in audit.not_held_out."
        )
        drawings.append(
            ("held_out", caption, lambda: figures.pairs(held_out, "False alarms", "a real held-out slice", LIGHT))
        )
    return drawings


def draw(
    result: AuditResult, folder: Path, drawings: Sequence[Drawing] = (), flagged: np.ndarray | None = None
) -> None:
    """Write everything into a folder, replacing what an earlier audit left there.

    Args:
        drawings: of the part `memorisation`; that of `utility` follows from the result.
        flagged: slices of `result.flagged`, in their order, uint8 [N, S, S].
    """
    with complete_folder(folder) as partial:
        (partial / "figures").mkdir()
        shown = [(key, caption, _png(make, partial / "figures" / f"{key}.png")) for key, caption, make in drawings]
        write_whole(partial / FILE, result.model_dump_json(indent=2))
        if flagged is not None and len(flagged):
            np.save(partial / PICTURES, flagged)
        view = {"result": result, "figures": shown, "rows": [_row(record) for record in result.records]}
        view["power"] = [_row(record, kind) for kind, record in result.power.items()]
        view["classes"] = [_row(record) for record in result.by_class.values()]
        view["mixtures"] = _mixtures(result)
        view["pairs"] = [_pair(pair) for pair in result.flagged]
        view["alarms"] = [_pair(pair) for pair in result.held_out_alarms]
        view["utility"] = None if result.utility is None else _utility(result, result.utility, partial / "figures")
        for file, escape in ((HTML, True), (MARKDOWN, False)):
            page = template_environment(_TEMPLATES, escape=escape).get_template(file)
            write_whole(partial / file, page.render(view))


def _utility(result: AuditResult, utility: UtilityResult, folder: Path) -> dict[str, Any]:
    """What the pages say of the part `utility`, with its figure."""
    crossed = any(not each.synthetic.worth_beyond for each in utility.learners)
    cross = "Cross: as many real slices alone are as good as synthetic ones alone. " if crossed else ""
    caption = (
        f"The utility curve. Balanced accuracy of {utility.n:,} real test slices against the real slices learnt from; "
        f"95 % intervals over {utility.num_seeds} seeds and the test slices. {cross}"
        f"{result.copied_words[0].upper()}{result.copied_words[1:]}."
    )
    png = _png(lambda: utility_figures.curve(utility, LIGHT), folder / f"{UTILITY}.png")
    learners = [
        {
            "title": utility_figures.NAMES[each.learner],
            "sentences": utility_figures.sentences(each),
            "classes": list(utility.classes),
            "rows": [_arm(arm, list(utility.classes)) for arm in each.arms],
            "on_synthetic": f"{each.on_synthetic.value:.3f} ({each.on_synthetic.low:.3f} to "
            f"{each.on_synthetic.high:.3f}, n = {each.n_synthetic:,})",
            "steps": utility_figures.how_learnt(each),
        }
        for each in utility.learners
    ]
    return {"caption": caption, "png": png, "learners": learners, "copied": result.copied_words}


def _arm(arm: ArmResult, classes: Sequence[str]) -> list[str]:
    """A row: real and synthetic slices, accuracy, gain, p, worth, sensitivities."""
    gain, p_value = arm.gain, arm.p_adjusted
    return [
        f"{arm.num_real:,}",
        f"{arm.num_synthetic:,}",
        f"{arm.accuracy.value:.3f} ({arm.accuracy.low:.3f} to {arm.accuracy.high:.3f})",
        "-" if gain is None else f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})",
        "-" if p_value is None else f"{p_value:.2g}",
        f"{arm.worth_beyond}{arm.worth:,.0f}",
        *(f"{arm.sensitivity[name]:.2f}" for name in classes),
    ]


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
        "null": "-" if record.null is None else f"{record.null:.3g}",
        "what": record.what,
    }


def _pair(pair: FlaggedPair) -> list[str]:
    """A row: the slice, the training slice, its subject, correlation, features, and how the slice was moved."""
    which = f"number {pair.index}" if pair.name is None else pair.name
    scores = [f"{pair.correlation:.4f}", f"{pair.features:.3f}"]
    by = " and ".join(pair.by) or "the lower threshold of one half"  # of held-out groups; the audit takes the higher
    return [which, pair.source, pair.subject or "-", *scores, by, pair.moved]


def _mixtures(result: AuditResult) -> list[tuple[str, list[str]]]:
    """Rows by kind: the flagged share and the verdict for each share of planted copies."""
    kinds = dict.fromkeys(control.kind for control in result.controls)
    return [
        (kind, [f"{control.flagged:.1%}, {control.verdict}" for control in result.controls if control.kind == kind])
        for kind in kinds
    ]
