"""How numbers and lists are written for people: on the terminal, in tables, on pages and under figures."""

import math
from collections.abc import Sequence


def number(value: object, digits: int = 4) -> str:
    """A number by itself, such as a setting: significant digits, thousands set apart.

    Args:
        value: what is not a number is written as it is; None as a dash.
        digits: significant ones of a float.
    """
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def measured(value: float, decimals: int | None = None) -> str:
    """A measured number of a table, where numbers below each other have the same decimals.

    Args:
        decimals: default: three below 10, one below 1000, none above.
    """
    return f"{value:,.{decimals_of(value) if decimals is None else decimals}f}"


def decimals_of(value: float) -> int:
    """Decimals that `measured` gives a number."""
    size = abs(value)
    return 0 if size >= 1000 else 1 if size >= 10 else 3


def with_n(name: str, n: int | None) -> str:
    """A measure with the number that its values stand for, such as "eval/fd_lite0 (n = 64)"; None: not known."""
    return name if n is None else f"{name} (n = {n:,})"


def counted(count: int, thing: str) -> str:
    """A number of things: "1 training", "3 trainings"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """A list in a sentence: "a, b and c"."""
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)
