"""From a YAML file and dotted overrides to one validated, frozen job.

Defaults < YAML < overrides (`--set`, or a search trial's values): `load_job` is the only merge in the platform.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from lwddpm.config import KINDS, AnyJob, Job
from lwddpm.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


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
    if path.is_file():
        return path
    for name in (path.name, f"{path.name}.yaml"):
        if path.parent in (Path(), Path(folder)) and (shipped(folder) / name).is_file():
            return shipped(folder) / name
    names = ", ".join(sorted(file.stem for file in shipped(folder).glob("*.yaml")))
    raise ConfigError(f"{reference}: no such {what}; shipped: {names}")


def read_mapping(path: Path, what: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The mapping in a YAML file, and the `file:line` of every dotted key in it.

    Raises:
        ConfigError: not YAML, not a mapping, or a key twice.
    """
    try:
        text = path.read_text()
        values = yaml.safe_load(text)
        node = yaml.compose(text)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
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
        ConfigError: every broken rule, one line each: file, line, key, rule, value.
    """
    path = find_file(reference, "jobs", "job file")
    values, origins = read_mapping(path, f"a job file is a mapping that starts with 'kind: {'|'.join(KINDS)}'")
    for override in overrides:
        key, value = _parse_override(override)
        set_value(values, key, value)
        origins[key] = f"--set {key}"
    values.setdefault("name", path.stem)
    return validate_job(values, str(path), origins)


def validate_job(values: Mapping[str, Any], where: str, origins: Mapping[str, str] | None = None) -> AnyJob:
    """Validate merged values.

    Args:
        values: nested mapping as in a job file.
        where: what to name in messages when a key has no line of its own.
        origins: dotted key -> `file:line` or `--set key`.

    Raises:
        ConfigError: as `load_job`.
    """
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{where}: kind: must be one of {', '.join(KINDS)}, got {kind!r}{hint}")
    try:
        return KINDS[kind].model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(_messages(error, KINDS[kind], values, where, origins or {}))) from None


def _parse_override(override: str) -> tuple[str, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override}: must be dotted.key=value, such as training.lr=1e-4")
    try:
        return key.strip(), yaml.safe_load(text)
    except yaml.YAMLError:
        return key.strip(), text


def set_value(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Put a value at a dotted key of a nested mapping."""
    *parents, last = dotted.split(".")
    for part in parents:
        inner = values.get(part)
        if inner is None:
            inner = values[part] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {dotted}: {part} is a single value, not a section")
        values = inner
    values[last] = value


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping by dotted keys: what `set_value` puts in."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _lines(node: yaml.Node | None, prefix: str = "") -> list[tuple[str, int]]:
    if not isinstance(node, yaml.MappingNode):
        return []
    found = []
    for key, value in node.value:
        dotted = f"{prefix}{key.value}"
        found += [(dotted, key.start_mark.line + 1), *_lines(value, f"{dotted}.")]
    return found


def _messages(
    error: ValidationError, job: type[Job], values: Mapping[str, Any], where: str, origins: Mapping[str, str]
) -> list[str]:
    messages: dict[str, str] = {}
    for item in error.errors():
        section, parts, known = job, [], True
        for part in map(str, item["loc"]):
            if section is None:
                break  # pydantic adds the tried type of a union, or a list index: not part of the key
            parts.append(part)
            known = part in section.model_fields
            section = _section(section, part)  # type: ignore[assignment]
        dotted = ".".join(parts)
        if item["type"] == "extra_forbidden" and not known:
            rule = f"unknown key{nearest_key(dotted, job)}"
        elif item["type"] == "missing":
            rule = "is required"
        elif item["type"] == "value_error":
            rule = str(item["ctx"]["error"])
        else:
            rule = f"{item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}"
        key, colon, _ = rule.partition(":")
        if not dotted and colon and " " not in key:
            dotted, rule = key, rule[len(key) + 2 :]  # a rule over several sections names its own key
        place = origins.get(dotted, where)
        label = "" if place.startswith("--set") else f"{dotted}: " if dotted else ""
        if dotted in messages:  # the other members of a union: one line says them all
            messages[dotted] = f"{messages[dotted].rsplit(', got ', 1)[0]}; or {rule}"
        else:
            messages[dotted] = f"{place}: {label}{rule}"
    return list(messages.values())


def _section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    field = model.model_fields.get(name)
    candidates = () if field is None else (field.annotation, *get_args(field.annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _takes_a_value(model: type[BaseModel], name: str) -> bool:
    """Whether a key that may be a section may be a single value too."""
    others = [kind for kind in get_args(model.model_fields[name].annotation) if kind is not type(None)]
    return any(not (isinstance(kind, type) and issubclass(kind, BaseModel)) for kind in others)


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name in model.model_fields:
        inner = _section(model, name)
        found += known_keys(inner, f"{prefix}{name}.") if inner else []
        if inner is None or _takes_a_value(model, name):
            found.append(f"{prefix}{name}")
    return found


def nearest_key(dotted: str, job: type[Job]) -> str:
    keys = known_keys(job)
    last = dotted.rpartition(".")[2]
    near = difflib.get_close_matches(dotted, keys, n=1, cutoff=0.75) or [k for k in keys if k.endswith(f".{last}")]
    if near:
        return f"; did you mean {near[0]}?"
    parent = dotted.rpartition(".")[0]
    siblings = [key for key in keys if parent and key.rpartition(".")[0] == parent] or list(job.model_fields)
    return f"; known here: {', '.join(siblings)}"
