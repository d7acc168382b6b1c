"""An audit as tables of the dossier: each test with its null, and what planted copies show."""

from collections.abc import Iterable, Mapping
from typing import Any

from lwddpm.audit.canaries import KINDS
from lwddpm.release.evidence import Evidence
from lwddpm.wording import number

UTILITY = "utility_"  # how names of figures of that part of an audit begin
_MOST_ROWS = 24
_KNOWN = {"name", "value", "low", "high", "n", "null", "p_value", "what"}
_ENDS = ("low", "high")
_BESIDE = ("controls", "power", "thresholds")  # of an audit's file, in lines where they are in no table


def tests(audit: Evidence) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the parts memorisation and utility; `beside` says what a value is to be read beside."""
    rows = [_test(record) for record in audit.about.get("records", [])]
    utility = [row for row in rows if row["name"].startswith(UTILITY)]
    return [row for row in rows if row not in utility][:_MOST_ROWS], utility[:_MOST_ROWS]


def planted(audit: Evidence) -> dict[str, Any] | None:
    """What was found of planted copies: `kinds`, and `rows` with a name and a cell for each kind.

    None: the audit's file does not say so kind by kind.
    """
    power, controls = audit.about.get("power"), audit.about.get("controls")
    if not isinstance(power, Mapping) or not power or not all(_is_share(each) for each in power.values()):
        return None
    known = [kind for kind in KINDS if kind in power]
    kinds = [*known, *(kind for kind in power if kind not in known)][:_MOST_ROWS]
    shares = [power[kind] for kind in kinds]
    rows = [
        ("found", [f"{_percent(each['value'])} of {number(each.get('n'))}" for each in shares]),
        ("95 % interval", [f"{_percent(each['low'])[:-2]} to {_percent(each['high'])}" for each in shares]),
    ]
    for share, of_kind in _mixtures(controls).items():
        cells = [of_kind.get(kind) for kind in kinds]
        told = ["-" if cell is None else f"{_percent(cell['flagged'])}, {cell['verdict']}" for cell in cells]
        rows.append((f"{_percent(share)} planted", told))
    return {"kinds": kinds, "rows": rows}


def remarks(audit: Evidence) -> list[str]:
    """Why the verdict of an audit is what it is, and what else it says of its controls, in lines."""
    in_table = {"controls", "power"} if planted(audit) else set()
    about = audit.about
    lines = [_told({key: about[key]}) for key in _BESIDE if about.get(key) and key not in in_table]
    return [*(str(reason) for reason in about.get("reasons") or []), *lines]


def _test(record: Mapping[str, Any]) -> dict[str, Any]:
    ends = (record.get("low"), record.get("high"))
    p_value = record.get("p_value")
    beside = [
        _told({"null": record.get("null")}),
        "" if p_value is None else f"p = {number(p_value, 2)}",
        str(record.get("what") or ""),
        _told({key: value for key, value in record.items() if key not in _KNOWN}),
    ]
    return {
        "name": record["name"],
        "value": record["value"],
        "interval": None if None in ends else ends,
        "n": record.get("n"),
        "beside": "; ".join(filter(None, beside)),
    }


def _is_share(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(key), int | float) for key in ("value", *_ENDS))


def _mixtures(controls: Any) -> dict[float, dict[str, Mapping[str, Any]]]:
    """Share of planted copies -> kind -> what the audit said of them."""
    found: dict[float, dict[str, Mapping[str, Any]]] = {}
    for each in controls if isinstance(controls, list) else []:
        if isinstance(each, Mapping) and {"kind", "planted", "flagged", "verdict"} <= each.keys():
            found.setdefault(each["planted"], {})[each["kind"]] = each
    return found


def _percent(share: float) -> str:
    return f"{round(100 * share, 1):g} %"


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {text}" for key, value in values.items() if (text := _short(value)))


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({_told(value)})" if value else ""
    if isinstance(value, str):
        return value[:200]
    if isinstance(value, Iterable):
        return "; ".join(_short(each) for each in list(value)[:_MOST_ROWS])
    return "" if value is None else number(value)
