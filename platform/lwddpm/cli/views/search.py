"""What `lwddpm search show` prints for people, and a search at its end."""

from typing import Any

from rich.table import Column, Table

from lwddpm.cli.views.terminal import console, facts
from lwddpm.wording import number, with_n

_SHOWN_TRIALS = 20


def study(result: dict[str, Any]) -> None:
    """`search show`, and the end of a search."""
    counts = ", ".join(f"{count} {state}" for state, count in result["counts"].items())
    budget = result["definition"].get("max_steps", "?")
    facts(
        {
            "study": f"{result['name']}: {counts or 'no trials yet'}",
            "budget": f"{budget} steps a trial; {result['steps']:,} steps and {result['seconds']:.0f} s in all",
        }
    )
    if repeats := result["repeats"]:
        facts({"repeats": f"{repeats} proposals had the parameters of an earlier trial, and took over its outcome"})
    trials = {trial["number"]: trial for trial in result["trials"]}
    ranked = [trials[number] for number in result["ranking"]]
    rest = [trial for number, trial in trials.items() if number not in result["ranking"]]
    ordered = [*ranked, *sorted(rest, key=lambda trial: -trial["step"])]
    keys = list(ordered[0]["params"]) if ordered else []
    prune_on = result["definition"].get("prune_on", "")
    objectives = result["objectives"]
    last = [] if objectives == [prune_on] else [prune_on]
    measures = [with_n(name, result["n"].get(name)) for name in (*objectives, *last)]
    heads = ["trial", "state", "step", *measures, *(key.rpartition(".")[2] for key in keys)]
    table = Table(*(Column(head, overflow="fold") for head in heads))
    for trial in ordered[:_SHOWN_TRIALS]:
        values = [number(value) for value in trial["values"] or []]
        lowest = "" if trial["last"] is None else number(trial["last"])
        if not values:
            values = [f"[dim]{lowest}[/dim]" if name == prune_on else "" for name in objectives]
        mark = " *" if trial["number"] in result["pareto_front"] else ""
        params = [number(trial["params"].get(key), 3) for key in keys]
        extra = [lowest] if last else []
        table.add_row(f"{trial['number']}{mark}", trial["state"], str(trial["step"]), *values, *extra, *params)
    if ordered:
        console.print(table)
        console.print("* best, or on the Pareto front; dim values are of lower budgets and not ranked")
    if len(ordered) > _SHOWN_TRIALS:
        console.print(f"and {len(ordered) - _SHOWN_TRIALS} more trials: --json has all")
    for trial in ordered:
        if trial["state"] in ("failed", "infeasible"):
            console.print(f"trial {trial['number']} {trial['state']}: {trial['reason']}", markup=False)
    for objective, shares in result["importance"].items():
        shown = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        facts({f"importance for {objective} (n = {len(ranked)} trials)": shown})
