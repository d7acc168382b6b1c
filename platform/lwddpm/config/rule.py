"""How a broken rule is told: which key, which rule, what it was given, what to do."""

import reprlib
from typing import Any


class RuleBroken(ValueError):  # noqa: N818
    """A value in a job file breaks a rule.

    Validators raise it; pydantic keeps it, and `jobfile` puts the place in the file in front.

    Attributes:
        key: dotted key below the section whose validator raises it: a field's name, or "" for the field (or section)
            that is being validated. A job's validators give the whole key.
        rule: what must hold, without the value: "must be at most 1000".
        value: what was given, as it is; `...` (not shown) where the rule names all that matters.
        remedy: what to do about it: "try 30 or 33"; may be "".
    """

    def __init__(self, key: str, rule: str, value: Any = ..., remedy: str = "") -> None:
        super().__init__(key, rule, value, remedy)
        self.key, self.rule, self.value, self.remedy = key, rule, value, remedy

    @property
    def has_value(self) -> bool:
        return self.value is not ...

    def below(self, section: str) -> "RuleBroken":
        """The same with the dotted key of the section in front."""
        key = ".".join(part for part in (section, self.key) if part)
        return RuleBroken(key, self.rule, self.value, self.remedy)

    def __str__(self) -> str:
        """`key: rule, got VALUE; remedy`, without what is empty."""
        key = f"{self.key}: " if self.key else ""
        value = f", got {shown(self.value)}" if self.has_value else ""
        return f"{key}{self.rule}{value}{f'; {self.remedy}' if self.remedy else ''}"


class _Short(reprlib.Repr):
    """Values as a job file writes them, cut where they are long. reprlib calls `repr_` and the name of the type."""

    def repr_NoneType(self, x: None, level: int) -> str:  # noqa: N802
        return "null"

    def repr_bool(self, x: bool, level: int) -> str:
        return str(x).lower()

    def repr_tuple(self, x: tuple[Any, ...], level: int) -> str:
        return self.repr_list(list(x), level)


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxlong = 40
_SHORT.maxlist = _SHORT.maxdict = 12
_SHORT.maxlevel = 4


def shown(value: Any) -> str:
    """A value in a message: as a job file has it, a few lines long at most."""
    return _SHORT.repr(value)
