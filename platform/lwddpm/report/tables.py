"""The tables of a report, as people read them: rounded, marked, with their notes."""

from collections.abc import Mapping
from typing import NamedTuple

from lwddpm.config import CLASS_MEASURES
from lwddpm.evaluation.copying import COPIED_SHARE
from lwddpm.report import results
from lwddpm.report.baseline import against_baseline
from lwddpm.report.data import ComparisonReport
from lwddpm.report.intervals import Difference, MeanInterval
from lwddpm.report.published import NAMES, STARTS
from lwddpm.report.style import display_name
from lwddpm.wording import counted, decimals_of, listed, measured, number

DAGGER = "†"
TIE = "="
COPIER = "returns training slices"


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
        calls = system.inference_steps if system.network_calls is None else system.network_calls
        steps = Cell(_steps(system.timesteps, calls), "run")
        if printed is None:
            parameters = results.millions(row.parameters) if row.parameters else "0"
            rows.append(
                (
                    _name(row),
                    *(Cell(""), steps),
                    *(Cell(""), _quality(row.distance, comparable=True)),
                    *(Cell(""), _quality(row.ssim, comparable=True)),
                    *(Cell(""), Cell(parameters, "run")),
                )
            )
        else:
            exact = printed.parameters is not None and round(row.parameters / 1e6, 2) == printed.parameters
            rows.append(
                (
                    _name(row),
                    Cell(_steps(printed.timesteps, printed.inference_steps), "paper"),
                    steps,
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
        Cell(_held_out(report)),
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
        "Steps: timesteps of training / network calls that draw a slice. Parameters: of the network that samples.",
        *_about_rows(report),
    )
    return Table("table-1", "Table 1: quality and size", head, (*rows, floor_row), notes)


def _name(row: results.SystemRow) -> Cell:
    return Cell(f"{row.name} ({COPIER})" if row.copies else row.name)


def _held_out(report: ComparisonReport) -> str:
    return "simulated held-out slices" if report.simulated else "real held-out slices"


def _about_rows(report: ComparisonReport) -> list[str]:
    """What the rows are that the paper's table does not have."""
    notes = []
    if report.other_starts:
        starts = {system.start for system in report.systems if system.start}
        own = " or ".join(sorted(STARTS[start] for start in starts))
        notes.append(
            f"The diffusion systems start from {own}; the rows below them are the same trained networks, sampled from "
            "the other start."
        )
    if any(row.copies for row in results.rows(report)):
        notes.append(
            f'Rows that say "{COPIER}" are best in nothing: slices that were learnt by heart score better in a Fréchet '
            "distance than new ones."
        )
    if report.gaussian_directions is not None:
        notes.append(
            "Gaussian, no network: slices drawn from a Gaussian that is fitted to the training slices "
            f"({counted(report.gaussian_directions, 'direction')}), without a training. What does not beat it has "
            "learnt nothing that counts here."
        )
    return notes


_DIVERSITY_NAMES = {
    "kid": "KID",
    "kd_lite0": "KD (EfficientNet-Lite0)",
    "precision_lite0": "precision",
    "recall_lite0": "recall",
    "density_lite0": "density",
    "coverage_lite0": "coverage",
    "out_of_band": "outside the band",
    COPIED_SHARE: "copied share",
}


def diversity(report: ComparisonReport) -> Table | None:
    """What Fréchet distances do not tell apart; None where none of it was measured."""
    notes = (
        "Precision: share of drawn slices near a real one; recall: share of real slices near a drawn one. Density and "
        "coverage are the same with other neighbourhoods. High is good; blur buys precision and density, copies of "
        "few slices too, and neither buys recall and coverage. Outside the band: share of slices whose brightness or "
        "contrast lies outside that of 98 % of the training slices, good when near that of the held-out ones. Copied "
        "share: slices that are nearer to a training slice than half of the usual distance of held-out slices, good "
        "when no higher than theirs; kind: audit looks closer.",
    )
    return _of_metrics(report, "diversity", "Diversity, brightness and copies", _DIVERSITY_NAMES, notes)


def conditional(report: ComparisonReport) -> Table | None:
    """Whether systems draw the class that they are asked for, and what their slices are good for beside how many of
    them are copies, which look useful too; None where systems are told no class."""
    told = [measure for name, measure in CLASS_MEASURES.items() if any(name in m.values for m in report.measurements)]
    notes = (
        "; ".join(
            f"{_capital(measure.label)} ({'more' if measure.better == 'high' else 'less'} is better): {measure.means}"
            for measure in told
        )
        + ". The last row is what real slices of the same classes score.",
    )
    names = {name: measure.label for name, measure in CLASS_MEASURES.items()}
    beside = {COPIED_SHARE: _DIVERSITY_NAMES[COPIED_SHARE]} if CLASS_MEASURES["utility_lite0"] in told else {}
    return _of_metrics(report, "conditional", "The class that was asked for", names, notes, beside)


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _of_metrics(
    report: ComparisonReport,
    key: str,
    title: str,
    names: Mapping[str, str],
    notes: tuple[str, ...],
    beside: Mapping[str, str] | None = None,
) -> Table | None:
    """A column for each of some metrics of `results.DIVERSITY`, a row for each system that has one of them.

    Args:
        beside: metrics that these rows have as well.
    """
    rows = [row for row in results.rows(report) if row.diversity.keys() & names.keys()]
    names = {**names, **(beside or {})}
    metrics = [name for name in names if any(name in row.diversity for row in rows)]
    if "kid" in metrics and "kd_lite0" in metrics:
        metrics.remove("kd_lite0")
    if not metrics:
        return None
    cells = [(_name(row), *(_diversity_cell(row.diversity.get(name), name) for name in metrics)) for row in rows]
    floors = {name: row.diversity[name].floor for row in rows for name in metrics if name in row.diversity}
    floor_row = (
        Cell(_held_out(report)),
        *(Cell("" if (floor := floors[name]) is None else _diversity_number(floor, name), "run") for name in metrics),
    )
    head = ("system", *(names[name] for name in metrics))
    return Table(key, title, head, (*cells, floor_row), notes)


def _diversity_cell(value: results.Value | None, metric: str) -> Cell:
    if value is None:
        return Cell("-", "run")
    mean = value.estimate
    half = "" if mean.half_width is None else f" ± {_diversity_number(mean.half_width, metric)}"
    mark = f" {TIE}" if value.tied else ""
    return Cell(f"{_diversity_number(mean.mean, metric)}{half}{mark}", "run", value.best)


def _diversity_number(value: float, metric: str) -> str:
    """Shares with two decimals: n slices do not carry more; kernel distances with those that fit their size."""
    of_classes = CLASS_MEASURES.get(metric)
    share = metric not in ("kid", "kd_lite0") if of_classes is None else of_classes.share
    return measured(value, 2 if share else None)


def parts(report: ComparisonReport) -> list[Table]:
    """Metrics by class and by side of the band, for what was measured."""
    by_class = [name for name in ("coverage_lite0", "recall_lite0") if _parts(report, name)]
    tables = []
    if by_class:
        names = [_DIVERSITY_NAMES[name] for name in by_class]
        tables.append(_parts_table(report, "by-class", f"{listed(names).capitalize()} by class", by_class))
    if _parts(report, "out_of_band"):
        notes = ("Means over the repeats; a slice may lie on several sides.",)
        tables.append(_parts_table(report, "band", "On which side of the band", ["out_of_band"], notes))
    for name, measure in CLASS_MEASURES.items():
        if _parts(report, name):
            notes = (f"{_capital(measure.means_of_class)}.",)
            tables.append(_parts_table(report, name, f"{_capital(measure.of_class)} by class", [name], notes))
    return tables


def _parts(report: ComparisonReport, metric: str) -> list[str]:
    names = [name for row in results.rows(report) for name in results.parts_of(report, row.key, metric)]
    return list(dict.fromkeys(names))


def _parts_table(
    report: ComparisonReport, key: str, title: str, metrics: list[str], notes: tuple[str, ...] = ()
) -> Table:
    head = _parts(report, metrics[0])
    rows = []
    for row in results.rows(report):
        values = [results.parts_of(report, row.key, metric) for metric in metrics]
        if values[0]:
            pairs = (
                [(metric, of_one.get(name, 0.0)) for metric, of_one in zip(metrics, values, strict=True)]
                for name in head
            )
            texts = (" / ".join(_diversity_number(value, metric) for metric, value in pair) for pair in pairs)
            rows.append((Cell(row.name), *(Cell(text, "run") for text in texts)))
    return Table(key, title, ("system", *(name.replace("_", " ") for name in head)), tuple(rows), notes)


def baseline(report: ComparisonReport) -> Table | None:
    """Every row beside the Gaussian without a network; None where there is none."""
    compared = against_baseline(report)
    if not compared:
        return None
    distance = results.DISTANCE_NAMES[report.distance]
    rows = []
    for row in compared:
        outcome = "beats it" if row.beats else "does not beat it"
        if row.copies:
            outcome += f" ({COPIER})"
        elif not row.beats and row.difference.low is not None and row.difference.differs == 0:
            outcome += " (within the noise)"
        rows.append((Cell(row.name), Cell(interval(row.difference), "run"), Cell(outcome, "run", not row.beats)))
    notes = (
        f"{distance} of the system minus that of the baseline, with Welch's 95 % interval"
        + (
            " over sampling seeds: it is about these networks, which were trained once."
            if results.num_trainings(report.group("system")) == 1
            else " over trainings (of the baseline over sampling seeds)."
        )
        + " A system beats the baseline if the whole interval lies below 0; without one, if the difference does.",
    )
    return Table(
        "baseline",
        "Against a Gaussian without a network",
        ("system", f"{distance}, minus the baseline's", "this run"),
        tuple(rows),
        notes,
    )


def _quality(value: results.Value | None, *, comparable: bool) -> Cell:
    if value is None:
        return Cell("-", "run")
    mark = f" {TIE}" if value.tied else ""
    dagger = "" if comparable else f" {DAGGER}"
    return Cell(f"{with_interval(value.estimate)}{mark}{dagger}", "run" if comparable else "other", value.best)


def _steps(timesteps: int | None, inference: int | None) -> str:
    if timesteps is None:
        return "-" if inference is None else f"- / {inference}"
    return f"{timesteps} / {inference}"


def costs(report: ComparisonReport) -> Table:
    base = NAMES[results.BASELINE]
    head = (
        "system",
        "training, images/s",
        f"/ {base}",
        "peak memory of training, MiB",
        f"/ {base}",
        "network calls",
        "64 samples, s",
        f"/ {base}",
    )
    rows = []
    for row in results.rows(report):
        cells = [Cell(row.name)]
        calls = row.system.network_calls
        for value in (row.images_per_s, row.peak_memory_mib, row.seconds_per_64):
            if value is row.seconds_per_64:
                cells.append(Cell("-" if calls is None else number(calls), "run"))
            cells.append(Cell("-" if value is None else with_interval(value.estimate), "run"))
            cells.append(Cell("-" if value is None or value.relative is None else times(value.relative), "run"))
        rows.append(tuple(cells))
    rounds = max((len(cost.images_per_s) for cost in report.costs), default=0)
    on_gpu = report.environment.get("GPU", "none") != "none"
    memory = "allocated on the GPU" if on_gpu else "of the process, above what it holds before it builds a network"
    notes = (
        f"{rounds} rounds in turn, each in a fresh process with one worker's resources "
        f"({report.environment['processor']}); peak memory: {memory}. DDIM is trained as DDPM, and another start "
        "takes no training. The paper reports none of these.",
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
            Cell(display_name(v.label) + (f" ({COPIER})" if v.copies else "")),
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
