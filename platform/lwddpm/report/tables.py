"""The tables of a report, as people read them: rounded, marked, with their notes."""

from typing import NamedTuple

from lwddpm.report import results
from lwddpm.report.data import ComparisonReport
from lwddpm.report.intervals import Difference, MeanInterval, mean_interval
from lwddpm.report.published import NAMES
from lwddpm.report.style import display_name
from lwddpm.wording import decimals_of, measured, number

OUT_OF_BAND = "out_of_band"
DAGGER = "†"
TIE = "="


class Cell(NamedTuple):
    """A place in a table.

    Attributes:
        origin: `run`, `paper`, `other` (of this run, not comparable with the paper's beside it) or `text`.
    """

    text: str
    origin: str = "text"
    strong: bool = False


class Table(NamedTuple):
    key: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


ABLATIONS = (
    ("loss", "Loss: smooth L1, L1, L2"),
    ("attention", "Attention: Squeeze-Excitation, linear, none"),
    ("schedule", "Schedule: cosine, linear"),
    ("prediction_type", "Prediction: epsilon, v"),
)


def with_interval(mean: MeanInterval) -> str:
    """Mean ± half of the interval, both with the decimals of the mean."""
    half = "" if mean.half_width is None else f" ± {measured(mean.half_width, decimals_of(mean.mean))}"
    return measured(mean.mean) + half


def interval(difference: Difference) -> str:
    """A difference and its interval, all with the decimals that fit the widest of them."""
    value, low, high, _ = difference
    if low is None or high is None:
        return measured(value)
    decimals = decimals_of(max(abs(low), abs(high)))
    return f"{measured(value, decimals)} ({measured(low, decimals)} to {measured(high, decimals)})"


def times(ratio: Difference) -> str:
    return f"{number(ratio.value, 3)} x" if ratio.value < 10 else f"{measured(ratio.value, 1)} x"


def table_1(report: ComparisonReport) -> Table:
    distance = results.DISTANCE_NAMES[report.distance]
    head = (
        "system",
        "steps, paper",
        "steps, run",
        "FID, paper",
        f"{distance}, run",
        "SSIM, paper",
        "SSIM nearest, run",
        "parameters, paper",
        "parameters, run",
    )
    rows, floors = [], {}
    for row in results.rows(report):
        printed, system = row.published, row.system
        exact = printed.parameters is not None and round(row.parameters / 1e6, 2) == printed.parameters
        rows.append(
            (
                Cell(row.name),
                Cell(_steps(printed.timesteps, printed.inference_steps), "paper"),
                Cell(_steps(system.timesteps, system.inference_steps), "run"),
                Cell(f"{printed.fid:.2f}", "paper"),
                _quality(row.distance, comparable=not row.differences),
                Cell(f"{printed.ssim:.3f}", "paper"),
                _quality(row.ssim, comparable=False),
                Cell("-" if printed.parameters is None else f"{printed.parameters:.2f} M", "paper"),
                Cell(results.millions(row.parameters), "run" if exact or printed.parameters is None else "other"),
            )
        )
        for name, value in ((distance, row.distance), ("SSIM", row.ssim)):
            if value is not None and value.floor is not None:
                floors[name] = value.floor
    floor_row = (
        Cell("simulated held-out slices" if report.simulated else "real held-out slices"),
        *(Cell("") for _ in range(3)),
        Cell(measured(floors[distance]), "run") if distance in floors else Cell(""),
        Cell(""),
        Cell(measured(floors["SSIM"]), "run") if "SSIM" in floors else Cell(""),
        *(Cell("") for _ in range(2)),
    )
    notes = (
        f"{DAGGER} not comparable with the paper's number: see the list below for {distance}; for SSIM, the paper "
        "states no protocol, and this one (the best match of each generated slice among the test slices) cannot "
        "honestly come near 0.9.",
        "Steps: timesteps of training / steps of sampling. Parameters: of the network that samples.",
    )
    return Table("table-1", "Table 1: quality and size", head, (*rows, floor_row), notes)


def out_of_band(report: ComparisonReport) -> Table | None:
    """Slices outside the real band of brightness and contrast; None where no system was measured so."""
    rows, floors = [], set()
    for row in results.rows(report):
        measurements = [m for m in report.group("system") if m.label == row.system.name and OUT_OF_BAND in m.values]
        if measurements:
            shares = mean_interval(results.repeats(measurements, OUT_OF_BAND))
            floors |= {m.floors[OUT_OF_BAND] for m in measurements if OUT_OF_BAND in m.floors}
            n = results.num_slices(measurements)
            rows.append((Cell(row.name), Cell(with_interval(shares), "run"), Cell(n, "run")))
    if not rows:
        return None
    real = "simulated held-out slices" if report.simulated else "real held-out slices"
    floor_rows = [(Cell(real), Cell(measured(floor), "run"), Cell("")) for floor in sorted(floors)]
    notes = (
        "Share of slices whose mean or standard deviation lies outside the band of 98 % of the training slices: too "
        "bright, too dark, too flat or too harsh. Held-out slices say what a perfect generator would have.",
    )
    return Table(
        "out-of-band", "Brightness and contrast", ("system", "outside the band", "n"), (*rows, *floor_rows), notes
    )


def _quality(value: results.Value | None, *, comparable: bool) -> Cell:
    if value is None:
        return Cell("-", "run")
    mark = f" {TIE}" if value.tied else ""
    dagger = "" if comparable else f" {DAGGER}"
    return Cell(f"{with_interval(value.estimate)}{mark}{dagger}", "run" if comparable else "other", value.best)


def _steps(timesteps: int | None, inference: int | None) -> str:
    return "-" if timesteps is None else f"{timesteps} / {inference}"


def costs(report: ComparisonReport) -> Table:
    base = NAMES[results.BASELINE]
    head = (
        "system",
        "training, images/s",
        f"/ {base}",
        "peak memory of training, MiB",
        f"/ {base}",
        "64 samples, s",
        f"/ {base}",
    )
    rows = []
    for row in results.rows(report):
        cells = [Cell(row.name)]
        for value in (row.images_per_s, row.peak_memory_mib, row.seconds_per_64):
            cells.append(Cell("-" if value is None else with_interval(value.estimate), "run"))
            cells.append(Cell("-" if value is None or value.relative is None else times(value.relative), "run"))
        rows.append(tuple(cells))
    rounds = max((len(cost.images_per_s) for cost in report.costs), default=0)
    on_gpu = report.environment.get("GPU", "none") != "none"
    memory = "allocated on the GPU" if on_gpu else "of the process, above what it holds before it builds a network"
    notes = (
        f"{rounds} rounds in turn, each in a fresh process with one worker's resources "
        f"({report.environment['processor']}); peak memory: {memory}. DDIM is trained as DDPM. The paper reports "
        "none of these.",
    )
    return Table("costs", "Table 2: what it costs", head, tuple(rows), notes)


def ablation(report: ComparisonReport, name: str, title: str) -> Table:
    distance = results.DISTANCE_NAMES[report.distance]
    variants = results.ablation(report, name)
    first = display_name(variants[0].label) if variants else ""
    head = ("system", "variant", distance, f"minus {first}", "SSIM nearest")
    rows = [
        (
            Cell(NAMES[v.system]),
            Cell(display_name(v.label)),
            Cell(with_interval(v.distance.estimate) + (f" {TIE}" if v.distance.tied else ""), "run", v.distance.best),
            Cell("" if v.against_first is None else interval(v.against_first), "run"),
            Cell("-" if v.ssim is None else with_interval(v.ssim.estimate), "run", bool(v.ssim and v.ssim.best)),
        )
        for v in variants
    ]
    measurements = report.group(name)
    sampler = f"{display_name(measurements[0].sampler or '')} with {measurements[0].inference_steps} steps"
    floor = next((v.distance.floor for v in variants if v.distance.floor is not None), None)
    notes = (
        f"Equal budget; n = {measurements[0].n}, {sampler}"
        + (f"; floor {measured(floor)}" if floor is not None else "")
        + ". Values of another n or sampler, as in Table 1, must not be set beside these."
        + (
            " Each variant was trained once: the intervals are those of sampling, and say nothing about the settings."
            if results.num_trainings(measurements) == 1
            else ""
        ),
    )
    return Table(f"ablation-{name}", title, head, tuple(rows), notes)


def trainings(report: ComparisonReport) -> Table:
    head = ("training", "seed", "parameters", "steps", "epochs", "MLflow run")
    rows = tuple(
        (
            Cell(t.label),
            Cell(str(t.seed), "run"),
            Cell(number(t.parameters), "run"),
            Cell(number(t.steps), "run"),
            Cell(number(t.epochs, 3), "run"),
            Cell(t.run_id),
        )
        for t in report.trainings
    )
    return Table("trainings", "Trainings", head, rows)
