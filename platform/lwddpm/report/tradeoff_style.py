"""What the figures of a trade-off share: the words, mark and colour of each kind of way, limits of axes."""

import numpy as np

from lwddpm.config import CLASS_MEASURES
from lwddpm.evaluation.copying import COPIED_SHARE
from lwddpm.evaluation.figure_style import Theme
from lwddpm.evaluation.tradeoff import (
    COVERAGE,
    DENSITY,
    DISTANCE,
    PRECISION,
    RECALL,
    Tradeoff,
    Way,
)

CALLS = "network_calls"
# what is varied -> its words in the legend, its mark, and a system that no figure here shows, whose colour it has
VARIED = {
    "preset": ("the preset", "D", "lw_ddpm"),
    "guidance": ("guidance", "o", "ddpm"),
    "guidance_unconditional": ("guidance away from no class", "<", "recipe"),
    "guidance_guide": ("guidance away from the guide", ">", "recipe"),
    "guidance_unconditional_guide": ("guidance away from the\nguide told no class", "*", "wgan"),
    "condition_guidance": ("guidance of the conditions", "p", "lsgan"),
    "guidance_interval": ("guidance in an interval", "h", "gan"),
    "num_inference_steps": ("number of steps", "s", "ddim"),
    "start": ("start", "^", "wgan"),
    "sampler": ("sampler", "v", "recipe"),
    "eta": ("eta of DDIM", "P", "lsgan"),
    "truncation": ("truncation", "o", "gaussian"),
    "points": ("points given", "X", "ddpm"),
    "weights": ("other weights", "d", "gan"),
}
NAMES = {
    PRECISION: "precision",
    RECALL: "recall",
    DENSITY: "density",
    COVERAGE: "coverage",
    DISTANCE: "fd_lite0",
    **{name: measure.label for name, measure in CLASS_MEASURES.items()},
    COPIED_SHARE: "copied share",
    CALLS: "network calls a slice",
}
# key -> x, y, and whether more of them is better
PLANES = {
    "precision_recall": (RECALL, PRECISION, (True, True)),
    "density_coverage": (COVERAGE, DENSITY, (True, True)),
    "fd_calls": (CALLS, DISTANCE, (False, False)),
}


def colour_of(kind: str, theme: Theme) -> str:
    return theme.systems[VARIED[kind][2]]


def value_of(way: Way, name: str, of_class: str | None = None) -> float:
    return float(way.network_calls) if name == CALLS else way.mean(name, of_class)


def spread_of(way: Way, name: str, of_class: str | None = None) -> float:
    """Standard deviation over samplings."""
    return 0.0 if name == CALLS else way.spread(name, of_class)


def point_of(way: Way, key: str, of_class: str | None = None) -> tuple[float, float]:
    """Where a way lies on a plane."""
    across, up, _ = PLANES[key]
    return value_of(way, across, of_class), value_of(way, up, of_class)


def own_of(measured: Tradeoff) -> list[Way]:
    """The ways that a front is drawn through: with the model's weights and no copies, or all."""
    return [way for way in measured.ways if way.weights == "model" and not way.copies] or list(measured.ways)


def limits(values: list[float]) -> tuple[float, float]:
    """Ends of an axis around values, with room for names."""
    known = [value for value in values if np.isfinite(value)] or [0.0, 1.0]
    room = 0.15 * (max(known) - min(known)) or 0.1 * abs(known[0]) or 0.1
    return min(known) - room, max(known) + room
