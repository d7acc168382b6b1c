"""What `lwddpm models gate`, `promote`, `log`, `verify-log` and `dossier` print for people, and overrides elsewhere."""

from datetime import UTC, datetime
from typing import Any

from lwddpm.cli.views import models
from lwddpm.cli.views.models import promotion_line
from lwddpm.cli.views.terminal import console
from lwddpm.release import wording


def version(item: dict[str, Any]) -> None:
    """`models show`."""
    models.version(item)
    if said := wording.overridden(item["tags"]):
        console.print(said, markup=False)
    if item["gate"] is not None:
        verdict(item["gate"])
    if (pairs := item["flagged_pairs"]) is not None:
        said = ", ".join(f"{count} {what}" for what, count in pairs.items())
        console.print(f"flagged pairs of its audit: {said} (lwddpm dashboard shows them)", markup=False)
    console.print(f"\n{item['card']}", markup=False)


def verdict(gate: dict[str, Any]) -> None:
    """Each rule in a line, then the verdict."""
    for finding in gate["findings"]:
        found = f": {finding['value']}" if finding["value"] else ""
        why = f"; {finding['reason']}" if finding["status"] != "passed" and finding["reason"] else ""
        console.print(f"  {finding['status']:<7} {finding['rule']}{found}{why}", markup=False)
    until = ""
    if gate["valid_until"]:
        past = datetime.fromisoformat(gate["valid_until"]) < datetime.now(UTC)
        until = f", {'expired on' if past else 'counts until'} {gate['valid_until'][:10]}"
    console.print(f"gate {gate['status']}: policy {gate['policy']}{until}", markup=False)


def policy(result: dict[str, Any]) -> None:
    """`models gate`."""
    found = result["policy"]
    if found is None:
        console.print(f"{result['model']} has no policy: promotions ask for none", markup=False)
        return
    console.print(f"{result['model']}: {found['name']} v{found['version']}, SHA-256 {result['sha256']}", markup=False)
    console.print(f"  for {found['intended_use']}", markup=False)
    for rule in found["rules"]:
        side = "at_most" if "at_most" in rule else "at_least"
        floor = " times its floor" if rule.get("times_floor") else ""
        limit = f"{rule['metric']} ({rule['source']}) {side.replace('_', ' ')} {rule[side]:g}{floor}"
        console.print(f"  {limit}: {rule['why']}", markup=False)
    asked = [what for what, key in (("a reader study", "readers_study"), ("an approver", "approver")) if found[key]]
    asked.append(f"results no older than {found['expires_days']} days")
    console.print(f"  {', '.join(asked)}", markup=False)


def promotion(record: dict[str, Any]) -> None:
    """`models promote`."""
    if record["gate"] is not None:
        verdict(record["gate"])
    if record["promoted"]:
        console.print(promotion_line(record), markup=False)
    else:
        console.print(f"{record['model']}@{record['alias']} was not moved to version {record['to']}", markup=False)


def log(entries: list[dict[str, Any]]) -> None:
    """`models log`."""
    if not entries:
        console.print("nothing was logged yet: the log begins with the first promotion, policy or audit")
    for entry in entries:
        about = f"version {entry['version']}, " if entry.get("version") is not None else ""
        signed = f", signed {entry['key']}" if entry.get("signature") else ""
        line = f"{entry['number']:>4} {entry['at'][:19]} {entry['kind']}: {about}{wording.told(entry)}"
        console.print(f"{line} ({entry['by']}{signed}) {entry['hash'][:12]}", markup=False)


def log_check(result: dict[str, Any]) -> None:
    """`models verify-log`."""
    for problem in result["problems"]:
        console.print(problem, markup=False)
    signed = f", {result['signed']} signed" if result["signed"] else ", none signed"
    state = "whole" if result["whole"] else "NOT whole"
    head = f", newest {result['head']}" if result["head"] else ""
    store = " and the store continues it" if result.get("compared_with_store") and result["whole"] else ""
    count = result["entries"]
    console.print(
        f"{result['model']}: the log is {state}{store}: {count} entr{'y' if count == 1 else 'ies'}{signed}{head}",
        markup=False,
    )


def dossier(result: dict[str, Any]) -> None:
    """`models dossier`."""
    console.print(f"{result['file']}: {result['model']}, {result['state']}", markup=False)
