"""What `lwddpm run`, `sample`, `report`, `verify` and `doctor` print for people."""

from collections import Counter
from typing import Any

from rich.table import Column, Table

from lwddpm.cli.views.search import study
from lwddpm.cli.views.terminal import console, facts, metrics
from lwddpm.wording import listed, measured, number


def summary(result: dict[str, Any]) -> None:
    """`run` and `sample`."""
    if dataset := result.get("dataset"):
        splits = ", ".join(f"{num} {name}" for name, num in dataset["splits"].items())
        simulated = " (simulated)" if dataset["simulated"] else ""
        facts({"dataset": f"{dataset['path']}{simulated}", "version": dataset["version"], "slices": splits})
    if searched := result.get("search"):
        study(searched)
    if statements := result.get("statements"):
        _baseline(result.get("baseline", {}))  # an earlier version measured none
        _statements(statements, result.get("measured_on", {}))
    if choice := result.get("choice"):
        _choice(choice)
    if ways := result.get("ways"):
        _measured_ways(ways, result["n"])
        for name, preset in result["presets"].items():
            console.print(f"preset {name}: {preset['why']}", markup=False)
        facts({"kept as presets": result["stored"]})
    if result.get("metrics"):
        metrics(result["metrics"], result.get("n", {}))
    for missing in result.get("unavailable", []):
        console.print(f"not reported: {missing['name']}: {missing['reason']}", markup=False)
    for warning in result.get("warnings", []):
        console.print(f"warning: {warning}", markup=False)
    if audit := result.get("audit"):
        _audit(audit)
    if "out" in result:
        calls = result["network_calls"]
        cost = f"{calls} network call{'s' if calls > 1 else ''} a slice"
        what = "slices and figure.png" if "edit" in result else "slices and grid.png"
        facts({"samples": f"{result['count']} {what} in {result['out']}, {cost}"})
        if result.get("brought_to_size"):
            facts({"the image was brought": result["brought_to_size"]})
        if classes := result.get("classes"):
            each = ", ".join(f"{count} {name}" for name, count in classes.items())
            facts({"classes": f"{each} (conditions.csv says which file shows which)"})
        console.print("each file says that it is synthetic; lwddpm verify FILE... proves which model drew it")
    if "report" in result:
        facts({"report": result["report"]})
    if "run_id" in result:
        store = result["tracking_uri"]
        browse = store if store.startswith("http") else f"mlflow ui --backend-store-uri {store}"
        facts({"MLflow run": result["run_id"], "browse it": browse})
    if model := result.get("model"):
        facts(
            {
                "registered": f"{model['uri']} (version {model['version']})",
                "sample it": f"lwddpm sample {model['uri']} --count 64 --out samples",
            }
        )


def _measured_ways(ways: list[dict[str, Any]], n: int) -> None:
    from lwddpm.config import CLASS_MEASURES

    names = ["fd_lite0", "precision_lite0", "recall_lite0", "density_lite0", "coverage_lite0", "nearest"]
    names += [name for name in CLASS_MEASURES if any(name in way for way in ways)]
    labels = {name: measure.label for name, measure in CLASS_MEASURES.items()}
    heads = [Column(labels.get(name, name.removesuffix("_lite0")), justify="right") for name in names]
    table = Table("way to draw", Column("calls", justify="right"), *heads, "")
    for way in ways:
        said = "copies of training slices" if way["copies"] else ", ".join(way["recommended"])
        figures = [measured(way[name]) if name in way else "-" for name in names]
        table.add_row(way["label"], number(way["network_calls"]), *figures, said)
    console.print(
        f"means over samplings of n = {n} slices; nearest: distance to the nearest training slice", markup=False
    )
    console.print(table)


def _choice(choice: dict[str, Any]) -> None:
    """Which snapshot was taken, and all that there were."""
    table = Table("epoch", "fd_lite0", "", box=None)
    for candidate in choice["candidates"]:
        mark = "chosen" if candidate == choice["chosen"] else ""
        table.add_row(f"{candidate['epoch']:g}", measured(candidate["fd_lite0"]), mark)
    console.print(f"models, n {choice['n']} against {choice['num_reference']} validation slices:", markup=False)
    console.print(table)


def _audit(audit: dict[str, Any]) -> None:
    """The verdict with its reasons, the figures, and the power beside them."""
    console.print(f"verdict: {audit['verdict']}", markup=False)
    for part, why in audit["not_measured"].items():
        console.print(f"not measured: {part}, which {why}", markup=False)
    for reason in audit["reasons"]:
        console.print(f"  {reason}", markup=False)
    table = Table("figure", Column("value", justify="right"), "95 % interval", Column("n", justify="right"), "p")
    of_planted = {f"found of planted copies: {kind}": record for kind, record in audit["power"].items()}
    for name, record in ({record["name"]: record for record in audit["records"]} | of_planted).items():
        ends = (record["low"], record["high"])
        interval = "-" if None in ends else " to ".join(measured(end) for end in ends)
        table.add_row(name, measured(record["value"]), interval, f"{record['n']:,}", number(record["p_value"], 2))
    console.print(table)


def report(result: dict[str, Any]) -> None:
    """`report`."""
    _baseline(result.get("baseline", {}))
    _statements(result["statements"], result["measured_on"])
    facts({"report": result["report"]})


def _baseline(rows: dict[str, dict[str, Any]]) -> None:
    """Which systems are no better than slices drawn without a network."""
    names = [row["name"].replace(", ", " (") + ")" * (", " in row["name"]) for row in rows.values() if not row["beats"]]
    if names:
        verb = "does" if len(names) == 1 else "do"
        console.print(
            f"{listed(names)} {verb} not beat a Gaussian of the training slices, which has no network and no training",
            markup=False,
        )
    elif rows:
        console.print("every system beats a Gaussian of the training slices, which has no network and no training")


def _statements(verdicts: dict[str, str], measured_on: dict[str, str]) -> None:
    from lwddpm.report.published import STATEMENTS

    texts = {statement.key: statement.text for statement in STATEMENTS}
    table = Table("the paper says", "this run", "measured on")
    for key, verdict in verdicts.items():
        table.add_row(texts[key], verdict, measured_on.get(key, "-"))
    console.print(table)


def verified(result: list[dict[str, Any]]) -> None:
    """`verify`."""
    for image in result:
        console.print(f"{image['file']}: {image['message']}", markup=False)
    if len(result) > 1:
        counts = Counter(image["state"] for image in result)
        console.print(", ".join(f"{count} {state}" for state, count in counts.items()), markup=False)


def checkup(result: dict[str, Any]) -> None:
    """`doctor`."""
    table = Table("", "what", "found", "what to do")
    marks = {"ok": "[green]ok[/green]", "warning": "[yellow]warning[/yellow]", "broken": "[red]broken[/red]"}
    for check in result["checks"]:
        table.add_row(marks[check["status"]], check["name"], check["found"], check["remedy"])
    console.print(table)
