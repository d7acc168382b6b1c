"""A report in words and rounded numbers: what both its page and its Markdown say."""

from collections import Counter
from typing import Any

from lwddpm.evaluation.result import Unavailable
from lwddpm.report import diversity_tables, published, results, tables
from lwddpm.report.baseline import against_baseline
from lwddpm.report.data import GAUSSIAN, ComparisonReport, ReportData
from lwddpm.report.drawings import drawings
from lwddpm.report.intervals import mean_interval
from lwddpm.report.results import measured_of, repeats
from lwddpm.report.statements import Evidence, judge
from lwddpm.report.style import display_name
from lwddpm.report.table import TIE, interval, with_interval
from lwddpm.wording import listed, measured


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
        "table_1": tables.table_1(report),
        "diversity": [
            table
            for table in (
                diversity_tables.diversity(report),
                diversity_tables.conditional(report),
                *diversity_tables.parts(report),
            )
            if table
        ],
        "baseline": tables.baseline(report),
        "costs": tables.costs(report),
        "differences": [(row.name, row.differences) for row in results.rows(report) if row.published],
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
        "ablations": [tables.ablation(report, name, title) for name, title in tables.ABLATIONS if report.group(name)],
        "figures": drawings(data),
        "protocol": _protocol(report),
        "trainings": tables.trainings(report),
        "environment": report.environment,
        "missing": [(m.name, _reason(m)) for m in report.missing],
    }


def _summary(report: ComparisonReport, counts: Counter[str]) -> list[str]:
    rows = [row for row in results.rows(report) if row.distance]
    lines = []
    best = next((row for row in rows if row.distance and row.distance.best), None)
    if best is not None:
        tied = [row.name for row in rows if row.distance and row.distance.tied and row is not best]
        name = results.DISTANCE_NAMES[report.distance]
        value = with_interval(best.distance.estimate) if best.distance else ""
        floor = best.distance.floor if best.distance else None
        lines.append(
            f"Lowest {name}: {best.name} with {value}"
            + (f", which the noise cannot tell from {listed(tied)}" if tied else "")
            + ("; every network was trained once, and another seed may order them otherwise" if _once(report) else "")
            + (f"; as many real held-out slices score {measured(floor)}." if floor is not None else ".")
        )
    lines += _beaten(report)
    total, of_one_training = sum(counts.values()), counts["cannot decide (one training)"]
    of_copies = counts["cannot decide (copies)"]
    lines.append(
        f"Of the {total} statements that are taken from the paper this run supports {counts['supports']}, contradicts "
        f"{counts['contradicts']}, cannot decide {counts['cannot decide'] + of_one_training + of_copies}"
        + (f" ({of_one_training} of them because there was one training)" if of_one_training else "")
        + (f" ({of_copies} of them because a row returns training slices)" if of_copies else "")
        + f" and did not measure {counts['not measured']}."
    )
    return lines


def _beaten(report: ComparisonReport) -> list[str]:
    """Which systems are no better than the baseline, or that all are."""
    compared = against_baseline(report)
    if not compared:
        return []
    floor = mean_interval(repeats(measured_of(report, GAUSSIAN), report.distance))
    baseline = f"a Gaussian of the training slices, which has no network and no training ({with_interval(floor)})"
    beaten = [row.name for row in compared if not row.beats]
    if not beaten:
        return [f"Every system beats {baseline}."]
    names = listed([f"\u201c{name}\u201d" if "," in name else name for name in beaten])
    return [f"{names} {'does' if len(beaten) == 1 else 'do'} not beat {baseline}."]


def _caveats(report: ComparisonReport) -> list[str]:
    caveats = []
    if report.simulated:
        caveats.append("The slices are simulated: nothing here says anything about real MRI.")
    reasons = list(dict.fromkeys(reason for row in results.rows(report) for reason in row.differences))
    if reasons:
        caveats.append(f"Scaled down, or otherwise not as in the paper: {'; '.join(reasons)}.")
    if report.distance != "fid":
        why = next((_reason(m) for m in report.missing if m.name == "fid"), "it was not asked for")
        caveats.append(
            f"FID was not computed: {why}. In its place stands a Fréchet distance of {report.extractor} features: "
            "another scale, which ranks the systems of this run, and cannot be set beside any FID."
        )
    if _once(report):
        caveats.append(
            "Every network was trained once. Intervals and ties cover the noise of sampling and not that of training: "
            "they are about these networks, and say nothing about the methods. No statement about quality is decided "
            "(compare.seeds repeats the trainings)."
        )
        if len({m.sampling_seed for m in report.group("system")}) == 1:
            caveats.append("There was one sampling seed: no interval could be computed.")
    caveats += [f"{training.label}: {warning}" for training in report.trainings for warning in training.warnings]
    return caveats


def _once(report: ComparisonReport) -> bool:
    """Whether every network of the table was trained once."""
    return results.num_trainings(report.group("system")) == 1


def _reason(metric: Unavailable) -> str:
    """The reason without the remedy, which names addresses and places of one machine."""
    return metric.reason.partition("; ")[0]


def _scope(report: ComparisonReport) -> str:
    """What the verdicts are about."""
    rule = (
        "A statement is supported if every difference that it needs lies outside the noise, contradicted if one lies "
        "outside it on the other side, and undecided otherwise: at 95 % for all differences of a statement together "
        "(p-values corrected by Holm's method; the intervals are those of each difference alone). A statement about "
        "quality needs two or more trainings of each network; costs and numbers of parameters do not."
    )
    if any(row.differences for row in results.rows(report)):
        rule += (
            " Verdicts are about what was run here. At another scale than the paper's, a contradiction says that the "
            "statement does not hold at this scale, and nothing about the paper's own numbers."
        )
    return rule


def _legend(report: ComparisonReport) -> list[tuple[str, str]]:
    measurements = report.group("system")
    n = results.num_slices(measurements)
    seeds, trainings = {m.sampling_seed for m in measurements}, results.num_trainings(measurements)
    repeats = f"{trainings} trainings" if trainings > 1 else f"{len(seeds)} sampling seeds of one training"
    return [
        ("run", f"measured in this run, n = {n} slices; ± is half of a 95 % interval (Student's t) over {repeats}"),
        ("paper", f"printed in the paper ({published.SOURCE}); {published.UNSTATED} nor its protocols"),
        ("other", "of this run, but not comparable with the paper's beside it; the reasons stand below the table"),
        (
            "best",
            f"best of its column; {TIE} marks rows that the noise cannot tell from it (Welch's interval, 95 %)",
        ),
    ]


def _evidence(evidence: Evidence, report: ComparisonReport) -> str:
    distance = "FID" if report.distance == "fid" else "FD"
    units = {"fid": distance, "ssim": "SSIM", "parameters": "parameters", "seconds": "s for 64 samples"}
    what = f"{evidence.first} minus {evidence.second}"
    if evidence.difference is None:
        return f"{what}: not measured"
    value = interval(evidence.difference)
    if evidence.quantity == "parameters":
        value = f"{evidence.difference.value:,.0f}"
    outcome = {
        1: "as stated",
        -1: "the other way round",
        0: "within the noise",
        "one training": "of one training each, which says nothing about the methods",
        "copies": "which says nothing: slices that were learnt by heart score best",
    }[evidence.agrees]
    if evidence.agrees == 0 and evidence.difference.differs:
        outcome += " once corrected for the number of differences"
    return f"{what}: {value} {units[evidence.quantity]}, {outcome}"


def _protocol(report: ComparisonReport) -> list[tuple[str, str]]:
    splits = ", ".join(f"{num} {name}" for name, num in report.dataset["splits"].items())
    measurements = report.group("system")
    reference = sorted({m.num_reference for m in measurements})
    variants = [m for name, _ in tables.ABLATIONS for m in report.group(name)]
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
