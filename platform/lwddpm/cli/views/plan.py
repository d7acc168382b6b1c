"""What `lwddpm run --dry-run` prints for people."""

from typing import Any

from rich.table import Column, Table

from lwddpm.cli.views.terminal import console, facts
from lwddpm.wording import number


def plan(result: dict[str, Any]) -> None:
    """`run --dry-run`."""
    import yaml

    console.print(yaml.safe_dump(result["config"], sort_keys=False).rstrip(), markup=False)
    if classes := result.get("classes"):
        from lwddpm.data.class_folders import describe_classes  # brings Pillow, which other verbs do without

        for line in describe_classes(classes):
            console.print(line, markup=False)
    if conditions := result.get("conditions"):
        words = "; ".join(f"{name}: {values}" for name, values in conditions.items())
        console.print(f"can be asked for (model.conditions): {words}", markup=False)
    if not_taken := result.get("not_taken"):
        from lwddpm.data.manifest import NotTaken
        from lwddpm.data.remarks import describe_not_taken

        for line in describe_not_taken(NotTaken.model_validate(not_taken)):
            console.print(line, markup=False)
    if result["config"]["kind"] == "tradeoff":
        _planned_ways(result["tradeoff"])
    if audit := result.get("audit"):
        slices = "10 for each training slice" if audit["slices"] is None else f"{audit['slices']:,}"
        groups = "known once the dataset is prepared" if audit["held_out_groups"] is None else audit["held_out_groups"]
        parts = audit["parts"] or ["memorisation", "and utility, of a model with classes"]
        planned = {"parts": " ".join(parts)}
        if "memorisation" in parts:
            planned |= {"slices drawn": slices, "held-out groups": f"{groups}; {audit['needed']} or more are needed"}
        if utility := audit.get("utility"):
            of_classes = "as many as the largest mixture takes" if utility["slices"] is None else utility["slices"]
            planned["utility"] = f"slices: {of_classes}; classifiers that learn: {utility['fits']}"
        facts(planned)
    if "parameters" not in result:
        return
    known = "" if result["train_slices_known"] else " (expected; exact once the dataset is prepared)"
    facts(
        {
            "parameters": f"{result['parameters']:,}",
            "memory per worker": f"about {result['memory_mib_per_worker']:,} MiB (weights, optimizer, activations)",
            "work per step": f"{result['tflop_per_step_and_worker']:g} TFLOP per worker",
            "training slices": f"{result['train_slices']:,}{known}",
            "steps": f"{result['steps']:,} ({number(result['steps_per_epoch'])} an epoch)",
            "run folder": result["run_dir"],
        }
    )
    if trainings := result.get("trainings"):
        table = Table("training", Column("parameters", justify="right"), Column("steps", justify="right"))
        for label, needs in trainings.items():
            table.add_row(label, f"{needs['parameters']:,}", f"{needs['steps']:,}")
        console.print(table)
    if search := result.get("search"):
        rungs = ", ".join(f"{step:,}" for step in search["rungs"])
        combinations = "" if search["combinations"] is None else f": {search['combinations']:,} combinations"
        facts(
            {
                "searched": f"{', '.join(search['space'])}{combinations}",
                "trials": f"{search['trials']}, measured at {rungs} steps; {search['steps_at_most']:,} steps at most",
            }
        )


def _planned_ways(planned: dict[str, Any] | None) -> None:
    """Which ways to draw a trade-off will measure."""
    if planned is None:
        console.print("the ways to draw are known when the model is fetched, from what it has: a guide, a prior")
        return
    table = Table("way to draw", Column("network calls a slice", justify="right"))
    for label, calls in planned["ways"].items():
        table.add_row(label, number(calls))
    console.print(table)
    for label, reason in planned["left_out"].items():
        console.print(f"left out: {label}: {reason}", markup=False)
    facts({"network calls": f"{planned['network_calls']:,} in all"})
