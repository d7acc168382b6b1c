"""What `lwddpm lineage` prints for people."""

from typing import Any

from lwddpm.cli.views.terminal import MAX_ROWS, console
from lwddpm.wording import counted


def lineage(result: dict[str, Any]) -> None:
    """`lineage`."""
    if "entries" in result:
        for dataset in result["datasets"]:
            where = f"dataset {dataset['path']} version {dataset['version'][:12]}"
            console.print(f"{where} holds {dataset['entries']} of {result['entries']} entries", markup=False)
        for version in result["versions"]:
            console.print(
                f"marked: {version['uri']} ({version['entries']} of {result['entries']} entries)", markup=False
            )
        for uri in result["cleared"]:
            console.print(f"no longer marked: {uri}", markup=False)
        if not result["datasets"]:
            console.print(f"no dataset holds any of {result['entries']} entries")
    else:
        _found(result)
    for missed in result["not_looked_at"]:
        console.print(f"not looked at: dataset {missed['version'][:12]}: {missed['reason']}", markup=False)


def _found(result: dict[str, Any]) -> None:
    if result["mark"]:
        console.print(f"the picture is {result['mark']}", markup=False)
    for dataset in result["datasets"]:
        splits = ", ".join(f"{num:,} {split}" for split, num in dataset["splits"].items() if num)
        console.print(f"dataset {dataset['path']} version {dataset['version'][:12]}: {splits}", markup=False)
        for held in dataset["slices"][:MAX_ROWS]:
            near = f", correlation {held['correlation']:.3f}" if held["correlation"] is not None else ""
            console.print(f"  {held['split']} {held['source']} ({held['match']}{near})", markup=False)
        if len(dataset["slices"]) > MAX_ROWS:
            console.print(f"  and {len(dataset['slices']) - MAX_ROWS:,} more: --json lists all")
    for run in result["runs"]:
        what = "trained on them" if run["trained_on"] else "used the dataset"
        console.print(f"run {run['run_id']} {run['name']} ({run['kind']}): {what}", markup=False)
    for version in result["versions"]:
        what = "trained on them" if version["trained_on"] else "they are in no training split"
        aliases = f" ({', '.join(version['aliases'])})" if version["aliases"] else ""
        mark = ", marked withdrawn" if version["withdrawn"] else ""
        console.print(f"{version['uri']}{aliases}: {what}{mark}", markup=False)
    for drawn in result["samples"]:
        console.print(f"samples {drawn['path']}: {drawn['count']:,} drawn by {drawn['drawn_by']}", markup=False)
    if not result["datasets"]:
        console.print(f"none of {counted(result['searched'], 'dataset')} holds it")
    if result["hashed"] and not result["key"]:
        console.print(
            f"{counted(result['hashed'], 'dataset')} with hashed names, and no key: give --key, or LWDDPM_SUBJECT_KEY"
        )
