"""What `lwddpm models list`, `show` and `calibrate` print for people."""

from typing import Any

from rich.table import Table

from lwddpm.cli.views.terminal import console, facts, metrics
from lwddpm.wording import number, with_n


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
    facts(
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
