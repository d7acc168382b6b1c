"""What all sections of a job file have in common: their base, and types of values that several of them use."""

import hashlib
import json
from collections.abc import Sized
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lwddpm.config.rule import RuleBroken

LARGEST_INT = 2**31 - 1  # of counts and sizes: far beyond what a machine holds, and safe in databases and on devices

Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
PositiveInt = Annotated[int, Field(ge=1, le=LARGEST_INT)]
NonNegativeInt = Annotated[int, Field(ge=0, le=LARGEST_INT)]
SeveralInt = Annotated[int, Field(ge=2, le=LARGEST_INT)]
PositiveFloat = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Base of every section: immutable, and a key it does not know is an error.

    A section is complete when it is validated: defaults that follow from other settings are put in before, by a
    validator of mode "before", and nothing is written afterwards.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    # Settings that do not change the result: where, how fast and how visibly the work is done.
    incidental: ClassVar[frozenset[str]] = frozenset()

    @field_validator("*", mode="before")
    @classmethod
    def _text_is_one_printable_line(cls, value: Any) -> Any:
        """Texts become paths, addresses and names in tables, none of which takes a line break or a NUL."""
        if isinstance(value, str):
            control = next((character for character in value if character < " " or character == "\x7f"), None)
            if control is not None:
                raise RuleBroken("", "must be one line without control characters", control, "remove it")
        return value

    def digest(self) -> str:
        """12 hex digits that change whenever any value changes."""
        return hex_digest(self.model_dump(mode="json"))

    def essentials(self) -> dict[str, Any]:
        """The settings that decide the result, as JSON values: all but the incidental ones of this section and of those
        within it."""
        values = self.model_dump(mode="json", exclude=set(self.incidental))
        for name in values:
            inner = getattr(self, name)
            if isinstance(inner, Section):
                values[name] = inner.essentials()
        return values

    def incidental_keys(self, prefix: str = "") -> set[str]:
        """Dotted keys of the incidental settings of this section and of those within it."""
        keys = {f"{prefix}{name}" for name in self.incidental}
        for name in type(self).model_fields:
            inner = getattr(self, name)
            if isinstance(inner, Section):
                keys |= inner.incidental_keys(f"{prefix}{name}.")
        return keys


def hex_digest(values: Any, length: int = 12) -> str:
    """The first hex digits of the SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:length]


def is_none(value: object) -> bool:
    """For `exclude_if`: a setting that only GANs have is not in the dump, nor in the digest, of a diffusion job."""
    return value is None


def is_auto(value: object) -> bool:
    """For `exclude_if`: a choice that a job leaves to the platform is not in the dump, nor in the digest."""
    return value == "auto"


def is_empty(value: Sized) -> bool:
    """For `exclude_if`: a list or a mapping that a job leaves empty is not in the dump, nor in the digest."""
    return not value


def is_last(value: object) -> bool:
    """For `exclude_if`: a choice that a job leaves at the last model is not in the dump, nor in the digest."""
    return value == "last"


def is_one(value: float) -> bool:
    """For `exclude_if`: a factor or power that a job leaves at 1 is not in the dump, nor in the digest."""
    return value == 1


def is_natural(value: object) -> bool:
    """For `exclude_if`: shares that a job leaves as they are in the dataset are not in the dump, nor in the digest."""
    return value in ("natural", "train")


def is_false(value: bool) -> bool:
    """For `exclude_if`: a switch that a job leaves off is not in the dump, nor in the digest."""
    return not value
