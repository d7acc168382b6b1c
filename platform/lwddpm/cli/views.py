"""What a person reads at the end of a verb, a function for each; machines get `--json`."""

import sys
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from lwddpm.wording import listed, measured, number, with_n

MAX_ROWS = 20
# a file or a pipe has no width: wide enough that no table is cut there
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)


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
        facts = {"parts": " ".join(parts)}
        if "memorisation" in parts:
            facts |= {"slices drawn": slices, "held-out groups": f"{groups}; {audit['needed']} or more are needed"}
        if utility := audit.get("utility"):
            of_classes = "as many as the largest mixture takes" if utility["slices"] is None else utility["slices"]
            facts["utility"] = f"slices: {of_classes}; classifiers that learn: {utility['fits']}"
        _facts(facts)
    if "parameters" not in result:
        return
    known = "" if result["train_slices_known"] else " (expected; exact once the dataset is prepared)"
    _facts(
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
        _facts(
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
    _facts({"network calls": f"{planned['network_calls']:,} in all"})


def _measured_ways(ways: list[dict[str, Any]], n: int) -> None:
    names = ["fd_lite0", "precision_lite0", "recall_lite0", "density_lite0", "coverage_lite0", "nearest"]
    names += [name for name in ("obedience_lite0",) if any(name in way for way in ways)]
    heads = [Column(name.removesuffix("_lite0"), justify="right") for name in names]
    table = Table("way to draw", Column("calls", justify="right"), *heads, "")
    for way in ways:
        said = "copies of training slices" if way["copies"] else ", ".join(way["recommended"])
        figures = [measured(way[name]) if name in way else "-" for name in names]
        table.add_row(way["label"], number(way["network_calls"]), *figures, said)
    console.print(
        f"means over samplings of n = {n} slices; nearest: distance to the nearest training slice", markup=False
    )
    console.print(table)


def summary(result: dict[str, Any]) -> None:
    """`run` and `sample`."""
    if dataset := result.get("dataset"):
        splits = ", ".join(f"{num} {name}" for name, num in dataset["splits"].items())
        simulated = " (simulated)" if dataset["simulated"] else ""
        _facts({"dataset": f"{dataset['path']}{simulated}", "version": dataset["version"], "slices": splits})
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
        _facts({"kept as presets": result["stored"]})
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
        _facts({"samples": f"{result['count']} {what} in {result['out']}, {cost}"})
        if result.get("brought_to_size"):
            _facts({"the image was brought": result["brought_to_size"]})
        if classes := result.get("classes"):
            each = ", ".join(f"{count} {name}" for name, count in classes.items())
            _facts({"classes": f"{each} (conditions.csv says which file shows which)"})
        console.print("each file says that it is synthetic; lwddpm verify FILE... proves which model drew it")
    if "report" in result:
        _facts({"report": result["report"]})
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
    _facts({"report": result["report"]})


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


def metrics(values: dict[str, float], n: dict[str, int]) -> None:
    """A table of metrics with the number of slices that they stand for, beside their real-versus-real floors."""
    table = Table("metric", "generated", Column("n", justify="right"), "real versus real")
    for name, value in values.items():
        if not name.endswith("_floor"):
            floor = values.get(f"{name}_floor")
            table.add_row(name, number(value), number(n.get(name)), "" if floor is None else number(floor))
    console.print(table)


_SHOWN_TRIALS = 20


def study(result: dict[str, Any]) -> None:
    """`search show`, and the end of a search."""
    counts = ", ".join(f"{count} {state}" for state, count in result["counts"].items())
    budget = result["definition"].get("max_steps", "?")
    _facts(
        {
            "study": f"{result['name']}: {counts or 'no trials yet'}",
            "budget": f"{budget} steps a trial; {result['steps']:,} steps and {result['seconds']:.0f} s in all",
        }
    )
    if repeats := result["repeats"]:
        _facts({"repeats": f"{repeats} proposals had the parameters of an earlier trial, and took over its outcome"})
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
        _facts({f"importance for {objective} (n = {len(ranked)} trials)": shown})


def versions(listed: list[dict[str, Any]]) -> None:
    """`models list`."""
    if not listed:
        console.print("the registry is empty: train a model first, lwddpm run demo")
        return
    table = Table("model", "version", "aliases", "created", "metrics")
    for item in listed:
        shown = ", ".join(
            f"{k.removeprefix('eval/')} {with_n(number(v), item['n'].get(k))}"
            for k, v in item["metrics"].items()
            if "floor" not in k
        )
        aliases = ", ".join(item["aliases"]) + (" OVERRIDE" if "lwddpm.override" in item["tags"] else "")
        table.add_row(item["name"], str(item["version"]), aliases, item["created"], shown)
    console.print(table)
    for item in listed:
        if warning := item["tags"].get("lwddpm.warning"):
            console.print(f"{item['name']}/{item['version']}: warning: {warning}", markup=False)
        if item["withdrawn"]:
            console.print(f"{item['name']}/{item['version']}: {_withdrawn(item['withdrawn'])}", markup=False)


def version(item: dict[str, Any]) -> None:
    """`models show`, but for the gate and the card."""
    _facts(
        {
            "model": f"models:/{item['name']}/{item['version']}",
            "aliases": ", ".join(item["aliases"]) or "none",
            "created": item["created"],
            "run": item["run_id"],
            **item["tags"],
        }
    )
    if item["withdrawn"]:
        console.print(_withdrawn(item["withdrawn"]), markup=False)
    if item["metrics"]:
        metrics(item["metrics"], item["n"])
    for record in item["promotions"]:
        console.print(promotion_line(record), markup=False)


def _withdrawn(num: int) -> str:
    return f"its dataset holds slices of {num} withdrawn subject{'' if num == 1 else 's'} or files: do not use it"


def calibration(result: dict[str, Any]) -> None:
    """`models calibrate`."""
    made = result.get("model")
    where = f"{made['name']} version {made['version']}" if made else result["model_uri"]
    aliases = f" ({', '.join(made['aliases'])})" if made and made["aliases"] else ""
    number = f", {result['directions']} directions" if "directions" in result else ""
    console.print(f"{where}{aliases}: {result['state']}{number}", markup=False)


def promotion_line(record: dict[str, Any]) -> str:
    """A promotion in a line."""
    before = f"version {record['from']}" if record["from"] else "nothing"
    why = f": {record['reason']}" if record["reason"] else ""
    why = (f", approved by {record['approver']}" if record.get("approver") else "") + why
    why = (", OVERRIDE of its policy" if record.get("override") else "") + why
    moved = f"{record['model']}@{record['alias']} moved from {before} to version {record['to']}"
    return f"{moved} by {record['by']} at {record['at']}{why}"


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


def inspected(result: dict[str, Any]) -> None:
    """`data inspect`."""
    volumes = result["volumes"]
    if volumes:
        table = Table(
            "format",
            "sequence",
            "plane",
            "voxels",
            "mm",
            *(Column(of, justify="right") for of in ("volumes", "subjects")),
        )
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for volume in volumes:
            voxels, mm = (" x ".join(f"{side:g}" for side in volume[key]) for key in ("size", "spacing_mm"))
            row = (volume["kind"], volume["sequence"] or "unknown", volume["plane"] or "any", voxels, mm)
            groups.setdefault(row, []).append(volume)
        ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
        for row, members in ordered[:MAX_ROWS]:
            subjects = {volume["subject"] for volume in members} - {None}
            table.add_row(*row, f"{len(members):,}", f"{len(subjects):,}" if subjects else "unknown")
        console.print(table)
        if len(ordered) > MAX_ROWS:
            console.print(f"and {len(ordered) - MAX_ROWS} more kinds of volumes: --json lists all")
        several = sum(volume["volumes"] > 1 for volume in volumes)
        missing = sum(volume["missing_slices"] > 0 for volume in volumes)
        unknown = result["without_subject"]
        _facts(
            {"volumes": f"{len(volumes):,}", "subjects": f"{result['subjects']:,}"}
            | ({"without a subject": f"{unknown:,}: leakage between splits cannot be excluded"} if unknown else {})
            | ({"with several volumes": f"{several:,}, of which the first is taken (data.volumes)"} if several else {})
            | ({"with missing slices": f"{missing:,}"} if missing else {})
            | {"faces": "can show in slices of heads; data.faces=crop makes them black"}
        )
    for images in result["images"][:MAX_ROWS]:
        size = " x ".join(map(str, images["size"]))
        deep = ", more than 8 bits" if images["more_than_8_bits"] else ""
        pages = f", {images['pages']} pages" if images["pages"] > 1 else ""
        console.print(f"{images['files']:,} images of {size} pixels{deep}{pages}", markup=False)
    reasons: dict[str, list[str]] = {}
    for file in result["refused"]:
        reasons.setdefault(file["reason"], []).append(file["source"])
    for reason, files in sorted(reasons.items(), key=lambda group: -len(group[1]))[:MAX_ROWS]:
        console.print(f"refused: {len(files):,}: {reason}, such as {files[0]}", markup=False)
    if len(reasons) > MAX_ROWS:
        console.print(f"and {len(reasons) - MAX_ROWS} more reasons: --json lists all")
    for reason, num in result["passed_over"].items():
        console.print(f"not taken: {num:,} {reason}", markup=False)
    kinds = result["kinds"]
    if not kinds:
        console.print("nothing in it can be prepared")
    elif len(kinds) > 1:
        named = listed([f"{num:,} {kind}" for kind, num in kinds.items()])
        console.print(f"it mixes kinds ({named}): a job takes those of its data.format", markup=False)
    for kind in kinds:
        job = "prepare" if kind == "images" else f"prepare_{kind}"
        console.print(f"prepare it: lwddpm run jobs/{job}.yaml --set data.source=PATH", markup=False)


def _facts(facts: dict[str, str]) -> None:
    width = max(map(len, facts))
    for name, value in facts.items():
        console.print(f"{name:<{width}}  {value}", markup=False)


def head(result: dict[str, Any]) -> None:
    """`up`."""
    _facts(
        {
            "Ray": f"{result['ray']} (token in ~/.ray/auth_token)",
            "MLflow": f"{result['mlflow']} (user {result['mlflow_user']}, password in {result['environment']})",
            "storage": f"{result['storage']}: relative paths of submitted jobs start there",
            **result["monitoring"],
            "logs": result["logs"],
            "started": ", ".join(result["started"]) or "nothing: all was running",
            "open": "Ray's metrics ports, on all interfaces and without token, and its node ports, with token:"
            " let a firewall keep others out",
        }
    )
    console.print(f"\n  source {result['environment']}     # for ray, mlflow and lwddpm in this shell", markup=False)
    console.print("  lwddpm submit demo --wait\n  lwddpm down", markup=False)
    if result["exposed"]:
        console.print(f"  {result['join']}     # on other machines, with the same token", markup=False)


def downed(result: dict[str, Any]) -> None:
    """`down`."""
    if not result["stopped"]:
        console.print("no head is running on this machine")
        return
    jobs = f"; jobs stopped with a checkpoint: {', '.join(result['jobs'])}" if result["jobs"] else ""
    console.print(f"stopped: {', '.join(result['stopped'])}{jobs}", markup=False)


def submitted(result: dict[str, Any]) -> None:
    """`submit`."""
    submission(result)
    if result["state"] in ("PENDING", "RUNNING"):
        console.print(f"\n  lwddpm jobs logs {result['id']} --follow\n  lwddpm jobs stop {result['id']}", markup=False)


def submission(result: dict[str, Any]) -> None:
    """`jobs status`, `jobs stop`."""
    run = result["run"]
    _facts(
        {
            "job": f"{result['id']} ({result['kind'] or 'not of this platform'})",
            "state": f"{result['state']}, {result['message']}".rstrip(", "),
            "started": f"{(result['started'] or 'not yet').partition('.')[0]}; {result['seconds'] or 0:.0f} s",
            "MLflow run": f"{run['run_id']} ({run['url']})" if run else "none opened",
        }
    )


def submissions(jobs: list[dict[str, Any]]) -> None:
    """`jobs list`."""
    if not jobs:
        console.print("no jobs yet: lwddpm submit demo")
        return
    table = Table("job", "kind", "state", "started", "seconds")
    for item in jobs:
        started = (item["started"] or "").partition(".")[0]
        table.add_row(item["id"], item["kind"] or "", item["state"], started, f"{item['seconds'] or 0:.0f}")
    console.print(table)


def log(result: dict[str, str]) -> None:
    """`jobs logs`."""
    console.print(result["log"], end="", markup=False)


def ended(result: None) -> None:
    """`dashboard`: it has said everything while it ran."""
