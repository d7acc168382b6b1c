"""A report in words and rounded numbers: what both its page and its Markdown say."""

from collections import Counter
from typing import Any, NamedTuple

from lwddpm.evaluation.result import Unavailable
from lwddpm.report import published, table
from lwddpm.report.data import ComparisonReport, ReportData
from lwddpm.report.drawings import drawings
from lwddpm.report.intervals import Difference, MeanInterval
from lwddpm.report.published import NAMES
from lwddpm.report.statements import Evidence, judge
from lwddpm.report.style import display_name
from lwddpm.wording import decimals_of, listed, measured, number

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


def view(data: ReportData) -> dict[str, Any]:
    """Everything that the templates place."""
    report = data.report
    judgements = judge(report)
    counts: Counter[str] = Counter(judgement.verdict for judgement in judgements)
    return {
        "name": report.name,
        "title": f"{report.name}: {len(report.systems)} systems beside the paper's Table 1",
        "run_id": report.run_id,
        "created": report.created.replace("T", " ").replace("+00:00", " UTC"),
        "simulated": report.simulated,
        "summary": _summary(report, counts),
        "caveats": _caveats(report),
        "legend": _legend(report),
        "table_1": _table_1(report),
        "costs": _costs(report),
        "differences": [(row.name, row.differences) for row in table.rows(report)],
        "statements": [
            {
                "text": judgement.statement.text,
                "source": judgement.statement.source,
                "verdict": judgement.verdict,
                "evidence": [_evidence(evidence, report) for evidence in judgement.evidence],
            }
            for judgement in judgements
        ],
        "scope": _scope(report),
        "ablations": [_ablation(report, name, title) for name, title in ABLATIONS if report.group(name)],
        "figures": drawings(data),
        "protocol": _protocol(report),
        "trainings": _trainings(report),
        "environment": report.environment,
        "missing": [(m.name, _reason(m)) for m in report.missing],
    }


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


def _summary(report: ComparisonReport, counts: Counter[str]) -> list[str]:
    rows = [row for row in table.rows(report) if row.distance]
    lines = []
    if rows:
        best = min(rows, key=lambda row: row.distance.estimate.mean if row.distance else 0)
        tied = [row.name for row in rows if row.distance and row.distance.tied and row is not best]
        name = table.DISTANCE_NAMES[report.distance]
        value = with_interval(best.distance.estimate) if best.distance else ""
        floor = best.distance.floor if best.distance else None
        lines.append(
            f"Lowest {name}: {best.name} with {value}"
            + (f", which the noise cannot tell from {listed(tied)}" if tied else "")
            + (f"; as many real held-out slices score {measured(floor)}." if floor is not None else ".")
        )
    total = sum(counts.values())
    lines.append(
        f"Of the {total} statements that are taken from the paper this run supports {counts['supports']}, contradicts "
        f"{counts['contradicts']}, cannot decide {counts['cannot decide']} and did not measure "
        f"{counts['not measured']}."
    )
    return lines


def _caveats(report: ComparisonReport) -> list[str]:
    caveats = []
    if report.simulated:
        caveats.append("The slices are simulated: nothing here says anything about real MRI.")
    reasons = list(dict.fromkeys(reason for row in table.rows(report) for reason in row.differences))
    if reasons:
        caveats.append(f"Scaled down, or otherwise not as in the paper: {'; '.join(reasons)}.")
    if report.distance != "fid":
        why = next((_reason(m) for m in report.missing if m.name == "fid"), "it was not asked for")
        caveats.append(
            f"FID was not computed: {why}. In its place stands a Fréchet distance of {report.extractor} features: "
            "another scale, which ranks the systems of this run, and cannot be set beside any FID."
        )
    trainings = {m.training_seed for m in report.group("system")}
    if len(trainings) == 1:
        caveats.append(
            "Every network was trained once. Intervals cover the noise of sampling and not that of training, so that "
            "small differences may turn round with another seed (compare.seeds repeats the trainings)."
        )
    seeds = {m.sampling_seed for m in report.group("system")}
    if len(seeds) == 1 and len(trainings) == 1:
        caveats.append("There was one seed: no interval could be computed, and no quality statement can be decided.")
    caveats += [f"{training.label}: {warning}" for training in report.trainings for warning in training.warnings]
    return caveats


def _reason(metric: Unavailable) -> str:
    """The reason without the remedy, which names addresses and places of one machine."""
    return metric.reason.removeprefix(f"{metric.name}: ").partition("; ")[0]


def _scope(report: ComparisonReport) -> str:
    """What the verdicts are about."""
    rule = (
        "A statement is supported if every difference that it needs lies outside the noise (95 %), contradicted if one "
        "lies outside it on the other side, and undecided otherwise."
    )
    if any(row.differences for row in table.rows(report)):
        rule += (
            " Verdicts are about what was run here. At another scale than the paper's, a contradiction says that the "
            "statement does not hold at this scale, and nothing about the paper's own numbers."
        )
    return rule


def _legend(report: ComparisonReport) -> list[tuple[str, str]]:
    measurements = report.group("system")
    n = table.num_slices(measurements)
    seeds, trainings = {m.sampling_seed for m in measurements}, {m.training_seed for m in measurements}
    repeats = f"{len(trainings)} trainings" if len(trainings) > 1 else f"{len(seeds)} sampling seeds"
    return [
        ("run", f"measured in this run, n = {n} slices; ± is half of a 95 % interval (Student's t) over {repeats}"),
        ("paper", f"printed in the paper ({published.SOURCE}); {published.UNSTATED} nor its protocols"),
        ("other", "of this run, but not comparable with the paper's beside it; the reasons stand below the table"),
        ("best", f"best of its column; {TIE} marks rows that the noise cannot tell from it (Welch's interval, 95 %)"),
    ]


def _table_1(report: ComparisonReport) -> Table:
    distance = table.DISTANCE_NAMES[report.distance]
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
    for row in table.rows(report):
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
                Cell(table.millions(row.parameters), "run" if exact or printed.parameters is None else "other"),
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


def _quality(value: table.Value | None, *, comparable: bool) -> Cell:
    if value is None:
        return Cell("-", "run")
    mark = f" {TIE}" if value.tied else ""
    dagger = "" if comparable else f" {DAGGER}"
    return Cell(f"{with_interval(value.estimate)}{mark}{dagger}", "run" if comparable else "other", value.best)


def _steps(timesteps: int | None, inference: int | None) -> str:
    return "-" if timesteps is None else f"{timesteps} / {inference}"


def _costs(report: ComparisonReport) -> Table:
    base = NAMES[table.BASELINE]
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
    for row in table.rows(report):
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


def _ablation(report: ComparisonReport, name: str, title: str) -> Table:
    distance = table.DISTANCE_NAMES[report.distance]
    variants = table.ablation(report, name)
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
        + ". Values of another n or sampler, as in Table 1, must not be set beside these.",
    )
    return Table(f"ablation-{name}", title, head, tuple(rows), notes)


def _evidence(evidence: Evidence, report: ComparisonReport) -> str:
    distance = "FID" if report.distance == "fid" else "FD"
    units = {"fid": distance, "ssim": "SSIM", "parameters": "parameters", "seconds": "s for 64 samples"}
    what = f"{evidence.first} minus {evidence.second}"
    if evidence.difference is None:
        return f"{what}: not measured"
    value = interval(evidence.difference)
    if evidence.quantity == "parameters":
        value = f"{evidence.difference.value:,.0f}"
    outcome = {1: "as stated", -1: "the other way round", 0: "within the noise"}[evidence.agrees]
    return f"{what}: {value} {units[evidence.quantity]}, {outcome}"


def _protocol(report: ComparisonReport) -> list[tuple[str, str]]:
    splits = ", ".join(f"{num} {name}" for name, num in report.dataset["splits"].items())
    measurements = report.group("system")
    reference = sorted({m.num_reference for m in measurements})
    variants = [m for name, _ in ABLATIONS for m in report.group(name)]
    facts = [
        ("dataset", f"{report.dataset['path']}, version {report.dataset['version'][:12]}: {splits}"),
        ("image size", f"{report.image_size} x {report.image_size} px"),
        ("distance", f"{report.extractor}, weights sha256 {report.weights_sha256[:12]}"),
        ("slices", f"n = {measurements[0].n} generated against {listed([str(r) for r in reference])} training slices"),
        ("SSIM", "mean over generated slices of the best match among the test slices"),
    ]
    if variants:
        sampler = f"{display_name(variants[0].sampler or '')} with {variants[0].inference_steps} steps"
        facts.append(("ablations", f"n = {variants[0].n}, {sampler}"))
    return facts


def _trainings(report: ComparisonReport) -> Table:
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
