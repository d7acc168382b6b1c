"""Results by system and by variant: what this run measured, what the paper prints, and why the two may differ."""

from collections.abc import Sequence, Set
from typing import Literal, NamedTuple

from lwddpm.config import CLASS_MEASURES
from lwddpm.evaluation.copying import COPIED_SHARE, COPIES, as_told
from lwddpm.report import published
from lwddpm.report.data import GAUSSIAN, ComparisonReport, Cost, MeasuredSystem, Measurement, Training, row_key
from lwddpm.report.intervals import Difference, MeanInterval, difference, mean_interval, ratio, ties
from lwddpm.report.published import NAMES, STARTS, SYSTEMS, TABLE_1, Published
from lwddpm.wording import number

Direction = Literal["low", "high"]
SSIM = "ssim_nearest"
DISTANCE_NAMES = {"fid": "FID", "fd_lite0": "FD (EfficientNet-Lite0)"}
BASELINE = "ddpm"  # of costs
# What a Fréchet distance does not tell apart; None: there is no better, only nearer to the floor.
DIVERSITY: dict[str, Direction | None] = {
    "kid": "low",
    "kd_lite0": "low",
    "precision_lite0": "high",
    "recall_lite0": "high",
    "density_lite0": "high",
    "coverage_lite0": "high",
    "out_of_band": None,
    COPIED_SHARE: None,
    **{name: measure.better for name, measure in CLASS_MEASURES.items()},
}


class Value(NamedTuple):
    """A measured quantity of one row.

    Attributes:
        best, tied: among the rows of the table; `tied` where the noise cannot tell it from the best.
        floor: the same measurement on real slices.
        relative: to the baseline's row, for costs.
    """

    estimate: MeanInterval
    best: bool = False
    tied: bool = False
    floor: float | None = None
    relative: Difference | None = None


class SystemRow(NamedTuple):
    """One system, its other start, or the baseline.

    Attributes:
        key: as `row_key` says.
        published: None for what the paper does not have.
        diversity: by metric of DIVERSITY, those that were measured.
        differences: between this run's protocol and the paper's, a clause each; empty where none is known.
        copies: it returns training slices: whatever it scores, it is no best.
    """

    key: str
    system: MeasuredSystem
    name: str
    published: Published | None
    parameters: int
    distance: Value | None
    ssim: Value | None
    diversity: dict[str, Value]
    images_per_s: Value | None
    peak_memory_mib: Value | None
    seconds_per_64: Value | None
    differences: tuple[str, ...]
    copies: bool = False


def repeats(measurements: list[Measurement], metric: str) -> list[float]:
    """What counts as a repeat: trainings where there are several seeds, else samplings of the one training."""
    with_metric = [m for m in measurements if metric in m.values]
    by_training: dict[int, list[float]] = {}
    for measurement in with_metric:
        by_training.setdefault(measurement.training_seed, []).append(measurement.values[metric])
    if len(by_training) > 1:
        return [sum(values) / len(values) for values in by_training.values()]
    return [m.values[metric] for m in with_metric]


def num_trainings(measurements: Sequence[Measurement]) -> int:
    """How often what was measured was trained, with different seeds."""
    return len({measurement.training_seed for measurement in measurements})


def num_slices(measurements: Sequence[Measurement]) -> str:
    """How many slices were measured: "100", or "100/128" where numbers differ."""
    return "/".join(str(n) for n in sorted({m.n for m in measurements}))


def rows(report: ComparisonReport) -> list[SystemRow]:
    """Table 1 in the paper's order, then the recipe and the baseline; below each system its other start."""
    measured_systems = _systems(report)
    measured = {key: measured_of(report, key) for key in measured_systems}
    copiers = copying_rows(report)
    distances = _ranked(measured, report.distance, "low", copiers)
    similarities = _ranked(measured, SSIM, "high", copiers)
    diversity = {name: _ranked(measured, name, direction, copiers) for name, direction in DIVERSITY.items()}
    costs = {cost.system: cost for cost in report.costs}
    return [
        SystemRow(
            key=key,
            system=system,
            name=row_name(key),
            published=TABLE_1.get(key),
            parameters=report.training(system.trainings[0]).parameters if system.trainings else 0,
            distance=distances.get(key),
            ssim=similarities.get(key),
            diversity={name: values[key] for name, values in diversity.items() if key in values},
            images_per_s=_cost(costs, key, "images_per_s"),
            peak_memory_mib=_cost(costs, key, "peak_memory_mib"),
            seconds_per_64=_cost(costs, key, "seconds_per_64"),
            differences=tuple(protocol_differences(report, system)) if key in TABLE_1 else (),
            copies=key in copiers,
        )
        for key, system in measured_systems.items()
    ]


def _systems(report: ComparisonReport) -> dict[str, MeasuredSystem]:
    """What the rows are about, by key, in their order."""
    systems: dict[str, MeasuredSystem] = {}
    for system in SYSTEMS:
        systems |= {s.name: s for s in report.systems if s.name == system}
        systems |= {row_key(s.name, s.start): s for s in report.other_starts if s.name == system}
    if report.gaussian_directions is not None:
        systems[GAUSSIAN] = _GAUSSIAN
    return systems


_GAUSSIAN = MeasuredSystem(
    name=GAUSSIAN, trainings=(), timesteps=None, sampler=None, inference_steps=None, network_calls=0
)


def row_name(key: str) -> str:
    """A row of Table 1 as people write it."""
    system, _, start = key.partition("/")
    return NAMES[system] + (f", start from {STARTS[start]}" if start else "")


def measured_of(report: ComparisonReport, key: str) -> list[Measurement]:
    """The measurements of a row by the comparison's protocol."""
    if key == GAUSSIAN:
        return [m for m in report.group("baseline") if m.label == "protocol"]
    system, _, start = key.partition("/")
    group = report.group("start" if start else "system")
    return [m for m in group if (m.system, m.label) == (system, start or system)]


def parts_of(report: ComparisonReport, key: str, metric: str) -> dict[str, float]:
    """The values of a row's metric by class, or by side of a band: means over its measurements."""
    parts = [m.parts[metric] for m in measured_of(report, key) if metric in m.parts]
    names = dict.fromkeys(name for of_one in parts for name in of_one)
    return {name: sum(of_one.get(name, 0.0) for of_one in parts) / len(parts) for name in names}


def copies(measurements: Sequence[Measurement]) -> bool:
    """Whether the slices of a measurement are copies of training slices, by what it has told of them."""
    looks = (as_told(m.values.get(COPIED_SHARE), m.floors.get(COPIED_SHARE), m.n) for m in measurements)
    return any(look is not None and look.copies for look in looks)


def copying_rows(report: ComparisonReport) -> set[str]:
    """Rows with a training, or with slices, that return training slices: whatever they score, they are no best."""
    labels = {each.label for each in report.trainings if any(COPIES in warning for warning in each.warnings)}
    return {
        key
        for key, system in _systems(report).items()
        if labels & set(system.trainings) or copies(measured_of(report, key))
    }


def _ranked(
    measured: dict[str, list[Measurement]],
    metric: str,
    good: Direction | None,
    copiers: Set[str] = frozenset(),
) -> dict[str, Value]:
    values = {name: repeats(measurements, metric) for name, measurements in measured.items()}
    values = {name: repeated for name, repeated in values.items() if repeated}
    if not values:
        return {}
    estimates = {name: mean_interval(repeated) for name, repeated in values.items()}
    if good is None:
        return {name: Value(estimates[name], floor=_floor(measured[name], metric)) for name in values}
    honest = {name: repeated for name, repeated in values.items() if name not in copiers}
    tied, best = dict.fromkeys(values, False), None
    if honest:
        tied |= dict(zip(honest, ties(list(honest.values()), lowest=good == "low"), strict=True))
        best = (min if good == "low" else max)(honest, key=lambda name: estimates[name].mean)
    return {
        name: Value(estimates[name], name == best, tied[name], floor=_floor(measured[name], metric)) for name in values
    }


def _floor(measurements: list[Measurement], metric: str) -> float | None:
    return next((m.floors[metric] for m in measurements if metric in m.floors), None)


def _cost(costs: dict[str, Cost], system: str, quantity: str) -> Value | None:
    if system not in costs:
        return None
    own: tuple[float, ...] = getattr(costs[system], quantity)
    base: tuple[float, ...] = getattr(costs[BASELINE], quantity) if BASELINE in costs else ()
    if not own:
        return None
    relative = ratio(own, base) if base and min(*own, *base, 1) > 0 else None
    return Value(mean_interval(own), relative=relative)


def protocol_differences(report: ComparisonReport, system: MeasuredSystem) -> list[str]:
    """Why this run's FID of a system is not the paper's, most important first."""
    training = report.training(system.trainings[0])
    printed = TABLE_1[system.name]
    reasons = []
    if report.simulated:
        reasons.append("simulated slices instead of MRI")
    if report.distance != "fid":
        reasons.append(f"{report.extractor} features instead of Inception's")
    if report.image_size != published.IMAGE_SIZE:
        reasons.append(f"{report.image_size} x {report.image_size} px instead of {published.IMAGE_SIZE}")
    if printed.parameters is not None and round(training.parameters / 1e6, 2) != printed.parameters:
        reasons.append(f"{millions(training.parameters)} parameters instead of {printed.parameters:.2f} M")
    if training.epochs < published.EPOCHS - 0.5:
        reasons.append(f"{number(training.epochs, 3)} epochs instead of {published.EPOCHS}")
    if system.inference_steps is not None and system.inference_steps != printed.inference_steps:
        reasons.append(f"{system.inference_steps} sampling steps instead of {printed.inference_steps}")
    if system.start == "gaussian":
        reasons.append("a start from the prior of the training slices instead of noise")
    if system.guidance is not None:
        reasons.append(f"guidance by an earlier snapshot (w = {system.guidance:g}), in {system.network_calls} calls")
    if system.condition_guidance is not None:
        reasons.append(f"guidance by the class (w = {system.condition_guidance:g})")
    if system.timesteps is not None:
        reasons += _recipe_differences(training)
    return reasons


def _recipe_differences(training: Training) -> list[str]:
    expected = {
        "diffusion.prediction_type": published.PREDICTION_TYPE,
        "diffusion.loss": published.LOSS,
        "diffusion.beta_schedule": published.BETA_SCHEDULE,
    }
    words = {"v_prediction": "v prediction", "epsilon": "epsilon", "smooth_l1": "smooth L1", "l1": "L1", "l2": "L2"}
    words |= {"edm": "EDM's preconditioning", "flow": "flow matching"}
    return [
        f"{words.get(used, used)} instead of {words.get(printed, printed)}"
        for key, printed in expected.items()
        if (used := str(training.settings.get(key, printed))) != printed
    ]


def millions(parameters: int) -> str:
    """As the paper prints numbers of parameters."""
    return f"{parameters / 1e6:.2f} M"


class VariantRow(NamedTuple):
    """A row of an ablation's table.

    Attributes:
        against_first: this variant minus the paper's choice, the first one.
        copies: as of a `SystemRow`.
    """

    system: str
    label: str
    distance: Value
    ssim: Value | None
    against_first: Difference | None
    copies: bool = False


def ablation(report: ComparisonReport, name: str) -> list[VariantRow]:
    """Variants in the order in which they were measured, system by system; ties are within a system."""
    by_system: dict[str, dict[str, list[Measurement]]] = {}
    for measurement in report.group(name):
        by_system.setdefault(measurement.system, {}).setdefault(measurement.label, []).append(measurement)
    variant_rows = []
    for system, variants in by_system.items():
        copiers = {label for label, measured in variants.items() if copies(measured)}
        distances = _ranked(variants, report.distance, "low", copiers)
        similarities = _ranked(variants, SSIM, "high", copiers)
        first = next(iter(variants))
        for label, measured in variants.items():
            if label not in distances:
                continue
            own, base = repeats(measured, report.distance), repeats(variants[first], report.distance)
            against = difference(own, base) if label != first and base else None
            row = VariantRow(system, label, distances[label], similarities.get(label), against, label in copiers)
            variant_rows.append(row)
    return variant_rows
