"""The tables of what is measured beside a distance: diversity, brightness, copies, and the class that was asked for."""

from collections.abc import Mapping

from lwddpm.config import CLASS_MEASURES
from lwddpm.evaluation.copying import COPIED_SHARE
from lwddpm.report import results
from lwddpm.report.data import ComparisonReport
from lwddpm.report.table import TIE, Cell, Table, held_out, name_of
from lwddpm.wording import listed, measured

_NAMES = {
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
    return _of_metrics(report, "diversity", "Diversity, brightness and copies", _NAMES, notes)


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
    beside = {COPIED_SHARE: _NAMES[COPIED_SHARE]} if CLASS_MEASURES["utility_lite0"] in told else {}
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
    cells = [(name_of(row), *(_cell(row.diversity.get(name), name) for name in metrics)) for row in rows]
    floors = {name: row.diversity[name].floor for row in rows for name in metrics if name in row.diversity}
    floor_row = (
        Cell(held_out(report)),
        *(Cell("" if (floor := floors[name]) is None else _number(floor, name), "run") for name in metrics),
    )
    head = ("system", *(names[name] for name in metrics))
    return Table(key, title, head, (*cells, floor_row), notes)


def _cell(value: results.Value | None, metric: str) -> Cell:
    if value is None:
        return Cell("-", "run")
    mean = value.estimate
    half = "" if mean.half_width is None else f" ± {_number(mean.half_width, metric)}"
    mark = f" {TIE}" if value.tied else ""
    return Cell(f"{_number(mean.mean, metric)}{half}{mark}", "run", value.best)


def _number(value: float, metric: str) -> str:
    """Shares with two decimals: n slices do not carry more; kernel distances with those that fit their size."""
    of_classes = CLASS_MEASURES.get(metric)
    share = metric not in ("kid", "kd_lite0") if of_classes is None else of_classes.share
    return measured(value, 2 if share else None)


def parts(report: ComparisonReport) -> list[Table]:
    """Metrics by class and by side of the band, for what was measured."""
    by_class = [name for name in ("coverage_lite0", "recall_lite0") if _parts(report, name)]
    tables = []
    if by_class:
        names = [_NAMES[name] for name in by_class]
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
            texts = (" / ".join(_number(value, metric) for metric, value in pair) for pair in pairs)
            rows.append((Cell(row.name), *(Cell(text, "run") for text in texts)))
    return Table(key, title, ("system", *(name.replace("_", " ") for name in head)), tuple(rows), notes)
