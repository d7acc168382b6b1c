"""What `lwddpm sample` says of conditions on the command line, as settings of a job."""

from collections.abc import Sequence
from typing import Any

from lwddpm.errors import ConfigError

CLASS = "label"  # the condition that --class names


def asked(classes: Sequence[str], conditions: Sequence[str], count: int | None) -> tuple[dict[str, Any], int | None]:
    """`sampling.conditions`, and how many slices are to be drawn, if that follows from the classes.

    Args:
        classes: NAME or NAME:COUNT, each once.
        conditions: NAME=VALUE; without a value, nothing is said of the condition.
        count: as given.

    Raises:
        ConfigError: a text of another form, or counts that contradict each other.
    """
    named: dict[str, Any] = {}
    for text in conditions:
        name, equals, value = text.partition("=")
        if not name or not equals or name in named:
            raise ConfigError(f"--condition: must be NAME=VALUE, each name once, got {text!r}; such as plane=axial")
        named[name] = value or None
    shares: dict[str, int | None] = {}
    for text in classes:
        name, colon, number = text.rpartition(":")
        counted = bool(colon) and number.isdecimal()
        name = name if counted else text
        if not name or name in shares or (counted and int(number) < 1):
            raise ConfigError(f"--class: must be NAME or NAME:COUNT, each name once, got {text!r}")
        shares[name] = int(number) if counted else None
    if not shares:
        return named, count
    if CLASS in named:
        raise ConfigError(f"--class: names the condition {CLASS} that --condition names too; leave one of them out")
    if len(shares) == 1 and None in shares.values():
        return named | {CLASS: next(iter(shares))}, count
    with_count = [number for number in shares.values() if number is not None]
    if with_count and len(with_count) < len(shares):
        raise ConfigError("--class: give all classes a count or none, such as --class glioma_tumor:32")
    if with_count and count is not None and sum(with_count) != count:
        raise ConfigError(f"--count: must be {sum(with_count)}, the sum of the classes, got {count}; leave it out")
    return named | {CLASS: {name: number or 1 for name, number in shares.items()}}, sum(with_count) or count
