"""From a YAML file and dotted overrides to one validated, frozen job.

Defaults < YAML < overrides (`--set`, or a search trial's values): `load_job` is the only merge in the platform.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lwddpm.config import KINDS, AnyJob, RuleBroken, shown
from lwddpm.config.refused import broken_rules
from lwddpm.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent
_MOST_MESSAGES = 20

# Limits of what is read: far above any job file, and far below what exhausts memory or Python's recursion. Values are
# counted with what aliases stand for, so that neither an alias to itself nor one of many aliases gets through.
_MOST_VALUES = 10_000
_DEEPEST = 20
_LONGEST_VALUE = 2_000
_LONGEST_KEY = 200
# PyYAML's constructors let through what Python raises for values such as 2001-99-99, 0x_ and !!bool maybe.
_NOT_CONSTRUCTED = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError)


def shipped(folder: str) -> Path:
    """A folder of shipped files: `jobs`, `search_spaces` or `dashboards`, from the checkout, else from the wheel."""
    checkout = _PACKAGE.parents[1] / folder
    return checkout if (_PACKAGE.parents[1] / "pyproject.toml").exists() else _PACKAGE / "bundled" / folder


def find_file(reference: str, folder: str, what: str) -> Path:
    """Resolve a path, or the name of a shipped file such as `demo`.

    Args:
        reference: a path, or a name with or without `.yaml`.
        folder: `jobs` or `search_spaces`.
        what: how to call it in the message.

    Raises:
        ConfigError: there is no such file; lists the shipped ones.
    """
    path = Path(reference)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):  # no path at all: longer than the system takes, or with a NUL
        raise ConfigError(f"{shown(reference)}: no such {what}") from None
    for name in (path.name, f"{path.name}.yaml"):
        if path.parent in (Path(), Path(folder)) and (shipped(folder) / name).is_file():
            return shipped(folder) / name
    names = ", ".join(sorted(file.stem for file in shipped(folder).glob("*.yaml")))
    raise ConfigError(f"{reference}: no such {what}; shipped: {names}")


def read_mapping(path: Path, what: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The mapping in a YAML file, and the `file:line` of every dotted key in it.

    Args:
        what: what such a file holds, for the message.

    Raises:
        ConfigError: not YAML, not a mapping, too large, or a key twice.
    """
    try:
        values, node = _read_yaml(path.read_text(encoding="utf-8"))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check its access") from None
    except _NOT_CONSTRUCTED as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {what}")
    lines: dict[str, int] = {}
    for key, line in _lines(node):
        if key in lines:  # YAML's own reader would silently take the last
            raise ConfigError(f"{path}:{line}: {key}: must be given once, is in line {lines[key]} too; remove one")
        lines[key] = line
    return values, {key: f"{path}:{line}" for key, line in lines.items()}


def load_job(reference: str, overrides: Sequence[str] = ()) -> AnyJob:
    """Read, merge and validate a job.

    Args:
        reference: path of a YAML file or name of a shipped job.
        overrides: `dotted.key=value` strings; values are read as YAML.

    Raises:
        ConfigError: every broken rule, one line each: file, line, key, rule, value, remedy.
    """
    path = find_file(reference, "jobs", "job file")
    values, origins = read_mapping(path, f"a job file is a mapping that starts with 'kind: {'|'.join(KINDS)}'")
    origins = override(values, origins, overrides)
    values.setdefault("name", path.stem)
    return validate_job(values, str(path), origins)


def override(values: dict[str, Any], origins: Mapping[str, str], overrides: Sequence[str]) -> dict[str, str]:
    """Put `dotted.key=value` strings into a job's values; returns the origins with those of the new ones.

    Raises:
        ConfigError: not of that form, or a part of a key is no section.
    """
    origins = dict(origins)
    for text in overrides:
        key, value = _parse_override(text)
        try:
            set_value(values, key, value)
        except ConfigError as error:
            raise ConfigError(f"--set {error}") from None
        origins = {given: place for given, place in origins.items() if not given.startswith(f"{key}.")}
        origins[key] = f"--set {key}"
    return origins


def validate_job(values: Mapping[str, Any], where: str, origins: Mapping[str, str] | None = None) -> AnyJob:
    """Validate merged values.

    Args:
        values: nested mapping as in a job file.
        where: what to name in messages when a key has no line of its own.
        origins: dotted key -> `file:line` or `--set key`.

    Raises:
        ConfigError: as `load_job`.
    """
    origins = origins or {}
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else ""
        rule = RuleBroken("kind", f"must be one of {', '.join(KINDS)}", kind, hint)
        raise ConfigError(_message(rule, where, origins))
    try:
        return KINDS[kind].model_validate(dict(values))
    except ValidationError as error:
        broken = broken_rules(error, KINDS[kind])
    messages = [_message(rule, where, origins) for rule in broken[:_MOST_MESSAGES]]
    if len(broken) > _MOST_MESSAGES:
        messages.append(f"{where}: and {len(broken) - _MOST_MESSAGES} more")
    raise ConfigError("\n".join(messages))


def _message(broken: RuleBroken, where: str, origins: Mapping[str, str]) -> str:
    """`FILE:LINE: key: rule, got VALUE; remedy`, or `--set key: ...`.

    The place is that of the key; else of one below it, given by an override; else of the section around it.
    """
    key = broken.key
    below = (place for given, place in origins.items() if key and given.startswith(f"{key}."))
    place = origins.get(key) or next(below, None)
    while place is None and key:
        key = key.rpartition(".")[0]
        place = origins.get(key)
    place = place or where
    return f"--set {broken}" if place == f"--set {broken.key}" else f"{place}: {broken}"


def _parse_override(override: str) -> tuple[str, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key.strip() or len(key) > _LONGEST_KEY:
        raise ConfigError(f"--set {override[:80]}: must be dotted.key=value, such as training.lr=1e-4")
    try:
        return key.strip(), _read_yaml(text)[0]
    except ConfigError as error:
        raise ConfigError(f"--set {key.strip()}: {error}") from None
    except _NOT_CONSTRUCTED:
        return key.strip(), text


def set_value(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Put a value at a dotted key of a nested mapping; sections on the way are made where they are missing.

    Raises:
        ConfigError: a part of the key is a single value already.
    """
    *parents, last = dotted.split(".")
    for part in parents:
        inner = values.get(part)
        if inner is None:
            inner = values[part] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{dotted}: {part} is a single value, not a section")
        values = inner
    values[last] = value


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping by dotted keys: what `set_value` puts in."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _read_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """The value in a YAML text, and the nodes that it was made of.

    Raises:
        ConfigError: more, deeper or longer values than any job has.
        yaml.YAMLError, ValueError, ...: `_NOT_CONSTRUCTED`.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        _check_size(node)
        return None if node is None else loader.construct_document(node), node
    except RecursionError:
        raise ConfigError(f"must be nested at most {_DEEPEST} levels deep") from None
    finally:
        loader.dispose()


def _check_size(node: yaml.Node | None) -> None:
    count, rest = 0, [(node, 0)]
    while rest:
        node, depth = rest.pop()
        count += 1
        if count > _MOST_VALUES:
            raise ConfigError(f"must hold at most {_MOST_VALUES} values, counted with what aliases stand for")
        if depth > _DEEPEST:
            raise ConfigError(f"must be nested at most {_DEEPEST} levels deep")
        if isinstance(node, yaml.ScalarNode) and len(node.value) > _LONGEST_VALUE:
            raise ConfigError(f"a value may have at most {_LONGEST_VALUE} characters, got {len(node.value)}")
        if isinstance(node, yaml.MappingNode):
            rest += [(child, depth + 1) for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            rest += [(child, depth + 1) for child in node.value]


def _lines(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Every dotted key below a node, with the line that it stands in."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            dotted = f"{prefix}{key.value}"
            yield dotted, key.start_mark.line + 1
            yield from _lines(value, f"{dotted}.")
