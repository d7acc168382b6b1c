"""The dotted keys that a job file may have, read off the sections' models."""

import difflib
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel


def section_at(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The section that stands at a key of another one; None where the key is unknown or has single values only."""
    members = _members(model.model_fields[name].annotation) if name in model.model_fields else ()
    return next((member for member in members if _is_section(member)), None)


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All keys that can be set, such as `training.lr`, in the order of the fields.

    Args:
        model: a kind of job, or a section.
        prefix: put before each key.

    Returns:
        Keys of single values and lists. A key that may be either a section or a single value stands there itself,
        after the keys of the section.
    """
    keys = []
    for name, field in model.model_fields.items():
        section = section_at(model, name)
        keys += known_keys(section, f"{prefix}{name}.") if section else []
        if any(not _is_section(member) for member in _members(field.annotation)):
            keys.append(f"{prefix}{name}")
    return keys


def key_hint(dotted: str, model: type[BaseModel]) -> str:
    """What may have been meant by an unknown key: the nearest known one, else all that are known beside it.

    Args:
        dotted: the unknown key.
        model: the kind of job that does not know it.
    """
    keys = known_keys(model)
    last = dotted.rpartition(".")[2]
    near = difflib.get_close_matches(dotted, keys, n=1, cutoff=0.75) or [k for k in keys if k.endswith(f".{last}")]
    if near:
        return f"did you mean {near[0]}?"
    parent = dotted.rpartition(".")[0]
    siblings = [key for key in keys if parent and key.rpartition(".")[0] == parent] or list(model.model_fields)
    return f"known here: {', '.join(siblings)}"


def _members(annotation: Any) -> Iterator[Any]:
    """The types that a field takes: of a union its members, without None and without what `Annotated` adds."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif annotation is not type(None):
        yield annotation


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and get_origin(kind) is None and issubclass(kind, BaseModel)
