"""What a webhook is told of gates and promotions (`notify`)."""

from typing import Any

from lwddpm import notify


def promoted(result: dict[str, Any], url: str | None = None) -> None:
    """Tell the outcome of `promotion.promote`: what the gate said, where there is one, and what was moved."""
    url = notify.address(url)
    model = f"{result['model']} version {result['to']}"
    about = {"model": result["model"], "version": result["to"], "alias": result["alias"], "by": result["by"]}
    gate = result["gate"]
    if gate is not None:
        rules = [{"rule": one["rule"], "status": one["status"]} for one in gate["findings"]]
        text = f"gate {gate['status']} for {model}: policy {gate['policy']}"
        notify.tell(url, "gate", text, **about, status=gate["status"], policy=gate["policy"], rules=rules)
    if result["promoted"]:
        against = ", against its policy" if result.get("override") else ""
        text = f"{model} is now {result['alias']}{against}"
        notify.tell(url, "promotion", text, **about, override=bool(result.get("override")))
