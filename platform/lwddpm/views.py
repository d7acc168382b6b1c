"""What a person reads at the end of a verb; machines get `--json`."""

from typing import Any

from rich.console import Console
from rich.table import Table

console = Console(highlight=False, soft_wrap=True)


def plan(result: dict[str, Any]) -> None:
    """`run --dry-run`."""
    import yaml

    console.print(yaml.safe_dump(result["config"], sort_keys=False).rstrip(), markup=False)
    if "parameters" not in result:
        return
    known = "" if result["train_slices_known"] else " (expected; exact once the dataset is prepared)"
    _facts(
        {
            "parameters": f"{result['parameters']:,}",
            "memory per worker": f"about {result['memory_mib_per_worker']:,} MiB (weights, optimizer, activations)",
            "work per step": f"{result['tflop_per_step_and_worker']:g} TFLOP per worker",
            "training slices": f"{result['train_slices']:,}{known}",
            "steps": f"{result['steps']:,} ({result['steps_per_epoch']:,} an epoch)",
            "run folder": result["run_dir"],
        }
    )


def summary(result: dict[str, Any]) -> None:
    """`run` and `sample`."""
    if dataset := result.get("dataset"):
        splits = ", ".join(f"{num} {name}" for name, num in dataset["splits"].items())
        simulated = " (simulated)" if dataset["simulated"] else ""
        _facts({"dataset": f"{dataset['path']}{simulated}", "version": dataset["version"], "slices": splits})
    if result.get("metrics"):
        metrics(result["metrics"])
    for missing in result.get("unavailable", []):
        console.print(f"not reported: {missing['name']}: {missing['reason']}", markup=False)
    if "out" in result:
        _facts({"samples": f"{result['count']} slices and grid.png in {result['out']}"})
    if "run_id" in result:
        store = result["tracking_uri"]
        browse = store if store.startswith("http") else f"mlflow ui --backend-store-uri {store}"
        _facts({"MLflow run": result["run_id"], "browse it": browse})
    if model := result.get("model"):
        _facts(
            {
                "registered": f"{model['uri']} (version {model['version']})",
                "sample it": f"lwddpm sample {model['uri']} --count 64 --out samples",
            }
        )


def metrics(values: dict[str, float]) -> None:
    """A table of metrics beside their real-versus-real floors."""
    table = Table("metric", "generated", "real versus real")
    for name, value in values.items():
        if not name.endswith("_floor"):
            floor = values.get(f"{name}_floor")
            table.add_row(name, f"{value:.4g}", "" if floor is None else f"{floor:.4g}")
    console.print(table)


def versions(found: list[dict[str, Any]]) -> None:
    """`models list`."""
    if not found:
        console.print("the registry is empty: train a model first, lwddpm run demo")
        return
    table = Table("model", "version", "aliases", "created", "metrics")
    for item in found:
        shown = ", ".join(f"{k.removeprefix('eval/')} {v:.4g}" for k, v in item["metrics"].items() if "floor" not in k)
        table.add_row(item["name"], str(item["version"]), ", ".join(item["aliases"]), item["created"], shown)
    console.print(table)


def version(item: dict[str, Any]) -> None:
    """`models show`."""
    _facts(
        {
            "model": f"models:/{item['name']}/{item['version']}",
            "aliases": ", ".join(item["aliases"]) or "none",
            "created": item["created"],
            "run": item["run_id"],
            **item["tags"],
        }
    )
    if item["metrics"]:
        metrics(item["metrics"])
    for record in item["promotions"]:
        console.print(_promotion_line(record), markup=False)
    console.print(f"\n{item['card']}", markup=False)


def promotion(record: dict[str, Any]) -> None:
    """`models promote`."""
    console.print(_promotion_line(record), markup=False)


def _promotion_line(record: dict[str, Any]) -> str:
    before = f"version {record['from']}" if record["from"] else "nothing"
    why = f": {record['reason']}" if record["reason"] else ""
    moved = f"{record['model']}@{record['alias']} moved from {before} to version {record['to']}"
    return f"{moved} by {record['by']} at {record['at']}{why}"


def checkup(result: dict[str, Any]) -> None:
    """`doctor`."""
    table = Table("", "what", "found", "what to do")
    marks = {"ok": "[green]ok[/green]", "warning": "[yellow]warning[/yellow]", "broken": "[red]broken[/red]"}
    for check in result["checks"]:
        table.add_row(marks[check["status"]], check["name"], check["found"], check["remedy"])
    console.print(table)


def _facts(facts: dict[str, str]) -> None:
    width = max(map(len, facts))
    for name, value in facts.items():
        console.print(f"{name:<{width}}  {value}", markup=False)
