"""The terminal that views write to, and what several of them print."""

import sys

from rich.console import Console
from rich.table import Column, Table

from lwddpm.wording import number

MAX_ROWS = 20
# a file or a pipe has no width: wide enough that no table is cut there
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def facts(values: dict[str, str]) -> None:
    """A line for each fact, its name before it; names are as wide as the longest."""
    width = max(map(len, values))
    for name, value in values.items():
        console.print(f"{name:<{width}}  {value}", markup=False)


def metrics(values: dict[str, float], n: dict[str, int]) -> None:
    """A table of metrics with the number of slices that they stand for, beside their real-versus-real floors."""
    table = Table("metric", "generated", Column("n", justify="right"), "real versus real")
    for name, value in values.items():
        if not name.endswith("_floor"):
            floor = values.get(f"{name}_floor")
            table.add_row(name, number(value), number(n.get(name)), "" if floor is None else number(floor))
    console.print(table)
