"""The tables of a report on quality, size and cost, as people read them: rounded, marked, with their notes."""

from lwddpm.report import results
from lwddpm.report.baseline import against_baseline
from lwddpm.report.data import ComparisonReport
from lwddpm.report.published import NAMES, STARTS
from lwddpm.report.style import display_name
from lwddpm.report.table import COPIER, DAGGER, TIE, Cell, Table, held_out, interval, name_of, times, with_interval
from lwddpm.wording import counted, measured, number

ABLATIONS = (
    ("loss", "Loss: smooth L1, L1, L2"),
    ("attention", "Attention: Squeeze-Excitation, linear, none"),
    ("schedule", "Schedule: cosine, linear"),
    ("prediction_type", "Prediction: epsilon, v"),
)


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
                    name_of(row),
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
                    name_of(row),
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
        Cell(held_out(report)),
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
