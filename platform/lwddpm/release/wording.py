"""How entries of the log and overrides are told, on the terminal and on the board."""

import json
from typing import Any


def told(entry: dict[str, Any]) -> str:
    """What an entry says, in words."""
    data = entry["data"]
    match entry["kind"]:
        case "policy":
            what = "removed" if data.get("removed") else f"{data['name']} v{data['version']} {data['sha256'][:8]}"
            return f"{what}: {data['reason']}"
        case "promotion":
            return f"to {data['alias']}{', against the policy' if data['override'] else ''}: {data['reason']}"
        case "gate":
            return f"{data['status']}, {data['policy']}"
        case "override":
            return f"to {data['alias']}, approved by {data['approver']}: {data['reason']}"
        case "approval":
            return f"{data['approver']} approves {data['alias']}"
        case "confirmation":
            said = {"confirmed": "is a copy of", "rejected": "is no copy of"}.get(data["decision"], "is open again:")
            return f"drawn slice {data['index']} {said} {data['source']}"
        case "audit" | "evaluation":
            verdict = f", verdict {data['verdict']}" if "verdict" in data else ""
            return f"{data['file']} {data['sha256'][:8]}{verdict}, of {data.get('date', 'an unknown day')[:10]}"
    return ", ".join(f"{key} {str(value)[:40]}" for key, value in data.items())


def overridden(tags: dict[str, str]) -> str:
    """That a version was promoted against its policy, in a line; empty where it was not."""
    if "lwddpm.override" not in tags:
        return ""
    try:
        said = json.loads(tags["lwddpm.override"])
        return f"OVERRIDE by {said['approver']}, {said['at'][:10]}: {said['reason']}"
    except (ValueError, KeyError, TypeError):
        return "OVERRIDE (its tag was changed by hand)"
