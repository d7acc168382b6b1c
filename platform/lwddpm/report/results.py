"""Results by system and by variant: what this run measured, what the paper prints, and why the two may differ."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from lwddpm.report import published
from lwddpm.report.data import ComparisonReport, Cost, MeasuredSystem, Measurement, Training
from lwddpm.report.intervals import Difference, MeanInterval, difference, mean_interval, ratio, ties
from lwddpm.report.published import NAMES, TABLE_1, Published
from lwddpm.wording import number

Direction = Literal["low", "high"]
SSIM = "ssim_nearest"
DISTANCE_NAMES = {"fid": "FID", "fd_lite0": "FD (EfficientNet-Lite0)"}
BASELINE = "ddpm"


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
    """One system.

    Attributes:
        differences: between this run's protocol and the paper's, a clause each; empty where none is known.
    """

    system: MeasuredSystem
    name: str
    published: Published
    parameters: int
    distance: Value | None
    ssim: Value | None
    images_per_s: Value | None
    peak_memory_mib: Value | None
    seconds_per_64: Value | None
    differences: tuple[str, ...]


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
    """Table 1 in the paper's order."""
    ordered = [system for name in TABLE_1 for system in report.systems if system.name == name]
    measured = {s.name: [m for m in report.group("system") if m.label == s.name] for s in ordered}
    distances = _ranked(measured, report.distance, "low")
    similarities = _ranked(measured, SSIM, "high")
    costs = {cost.system: cost for cost in report.costs}
    return [
        SystemRow(
            system=system,
            name=NAMES[system.name],
            published=TABLE_1[system.name],
            parameters=report.training(system.trainings[0]).parameters,
            distance=distances.get(system.name),
            ssim=similarities.get(system.name),
            images_per_s=_cost(costs, system.name, "images_per_s"),
            peak_memory_mib=_cost(costs, system.name, "peak_memory_mib"),
            seconds_per_64=_cost(costs, system.name, "seconds_per_64"),
            differences=tuple(protocol_differences(report, system)),
        )
        for system in ordered
    ]


def _ranked(measured: dict[str, list[Measurement]], metric: str, good: Direction) -> dict[str, Value]:
    values = {name: repeats(measurements, metric) for name, measurements in measured.items()}
    values = {name: repeated for name, repeated in values.items() if repeated}
    if not values:
        return {}
    tied = dict(zip(values, ties(list(values.values()), lowest=good == "low"), strict=True))
    estimates = {name: mean_interval(repeated) for name, repeated in values.items()}
    best = (min if good == "low" else max)(estimates, key=lambda name: estimates[name].mean)
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
    """

    system: str
    label: str
    distance: Value
    ssim: Value | None
    against_first: Difference | None


def ablation(report: ComparisonReport, name: str) -> list[VariantRow]:
    """Variants in the order in which they were measured, system by system; ties are within a system."""
    by_system: dict[str, dict[str, list[Measurement]]] = {}
    for measurement in report.group(name):
        by_system.setdefault(measurement.system, {}).setdefault(measurement.label, []).append(measurement)
    variant_rows = []
    for system, variants in by_system.items():
        distances, similarities = _ranked(variants, report.distance, "low"), _ranked(variants, SSIM, "high")
        first = next(iter(variants))
        for label, measured in variants.items():
            if label not in distances:
                continue
            own, base = repeats(measured, report.distance), repeats(variants[first], report.distance)
            against = difference(own, base) if label != first and base else None
            variant_rows.append(VariantRow(system, label, distances[label], similarities.get(label), against))
    return variant_rows
