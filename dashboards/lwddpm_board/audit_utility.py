"""The part `utility` on the page of an audit: curves, what each mixture teaches, or why it was not measured."""

from typing import Any

from lwddpm.audit.utility.figures import NAMES, how_learnt, sentences, worth_of
from lwddpm.audit.utility.result import ArmResult, LearnerResult, UtilityResult
from lwddpm.kinds.audit.parts import NO_CLASSES
from lwddpm_board.audits import Audited

_LOOKS = ("b", "c", "d", "e", "f")  # of lines with synthetic slices; "a" is that of real ones
_APART_PX = 4  # intervals of lines beside each other


def of_learners(utility: UtilityResult) -> list[dict[str, Any]]:
    """What the page shows of each learner."""
    return [
        {
            "title": NAMES.get(each.learner, each.learner),
            "sentences": sentences(each),
            "how_learnt": how_learnt(each),
            "worth": worth_of(each.synthetic),
            "result": each,
            "record": f"utility_synthetic_{each.learner}",
            "curve": _curve(each, len(utility.classes)),
        }
        for each in utility.learners
    ]


def _curve(each: LearnerResult, num_classes: int) -> list[dict[str, Any]]:
    """Balanced accuracy by the number of real slices: a line for each ratio of synthetic ones, and what these teach
    alone, with a cross where real slices alone teach as much."""
    ratios = sorted({arm.ratio for arm in each.arms if arm.share > 0})
    lines = [
        {
            "name": "real slices alone" if ratio == 0 else f"and {ratio:g} synthetic for each",
            "look": "a" if ratio == 0 else _LOOKS[(place - 1) % len(_LOOKS)],
            "points": [_with_interval(arm) for arm in each.arms if arm.share > 0 and arm.ratio == ratio],
            "shift": _APART_PX * (place - (len(ratios) - 1) / 2),
        }
        for place, ratio in enumerate(ratios)
    ]
    alone, numbers = each.synthetic, [arm.num_real for arm in each.arms if arm.share > 0]
    inside = [] if alone.worth_beyond else [alone.worth]
    across = sorted({min(numbers), *inside, max(numbers)})
    return [
        *lines,
        {
            "name": f"{alone.num_synthetic:,} synthetic slices alone",
            "look": "alone",
            "points": [(number, alone.accuracy.value) for number in across],
            "crosses": [(number, alone.accuracy.value) for number in inside],
        },
        {
            "name": "chance",
            "look": "pale",
            "points": [(number, 1 / num_classes) for number in (min(numbers), max(numbers))],
            "crosses": [],
        },
    ]


def _with_interval(arm: ArmResult) -> tuple[float, float, float, float]:
    return arm.num_real, arm.accuracy.value, arm.accuracy.low, arm.accuracy.high


def not_measured(audited: Audited) -> str:
    """Why an audit can have no such part, and what to do; empty where it was only not asked for one."""
    if audited.classes is False:
        return f"Utility {audited.result.not_measured.get('utility', NO_CLASSES)}, and audit that."
    why = audited.result.not_measured.get("utility")
    return "" if why is None else f"Utility {why}."
