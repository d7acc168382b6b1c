"""What pydantic refuses, as broken rules: the same structure, whoever states the rule."""

from typing import Any

from pydantic import BaseModel, ValidationError

from lwddpm.config.keys import key_hint, section_at
from lwddpm.config.rule import RuleBroken, shown
from lwddpm.wording import counted

_LONGEST_KEY = 80
_AS_A_LIST, _AS_A_MAPPING = "write a list, such as [1, 2]", "write keys with values, such as {key: value}"
# pydantic's types of Python as a job file has them: rule, remedy
_COLLECTIONS = {
    "tuple_type": ("must be a list", _AS_A_LIST),
    "list_type": ("must be a list", _AS_A_LIST),
    "dict_type": ("must be a mapping", _AS_A_MAPPING),
    "model_type": ("must be a mapping", _AS_A_MAPPING),
}


def broken_rules(error: ValidationError, model: type[BaseModel]) -> list[RuleBroken]:
    """Every rule that values broke, with whole keys.

    Args:
        error: from validating values as `model`.
        model: a kind of job.

    Returns:
        One rule for each key and value: what the members of a union (such as `true`, `false` or `auto`) each ask for
        becomes one rule.
    """
    by_value: dict[tuple[str, str], list[RuleBroken]] = {}
    for item in error.errors(include_url=False):
        rule = _rule(item, model)
        by_value.setdefault((rule.key, shown(rule.value)), []).append(rule)
    return [_either(rules) for rules in by_value.values()]


def _either(rules: list[RuleBroken]) -> RuleBroken:
    first = rules[0]
    alternatives = dict.fromkeys(rule.rule for rule in rules)
    remedy = next((rule.remedy for rule in rules if rule.remedy), "")
    return RuleBroken(first.key, "; or ".join(alternatives), first.value, remedy)


def _rule(item: Any, model: type[BaseModel]) -> RuleBroken:
    key = _key(item["loc"], model, unknown=item["type"] == "extra_forbidden")
    match item["type"]:
        case "value_error":
            broken = item["ctx"]["error"]
            return broken.below(key) if isinstance(broken, RuleBroken) else RuleBroken(key, str(broken), item["input"])
        case "extra_forbidden":
            return RuleBroken(key, "unknown key", remedy=key_hint(key, model))
        case "missing" if isinstance(item["loc"][-1], int):  # of a list with a fixed number of values
            return RuleBroken(key, "must have more values", item["input"], "add them")
        case "missing":
            return RuleBroken(key, "is required", remedy="add it")
        case "too_short":
            fewest = counted(item["ctx"]["min_length"], "value")
            return RuleBroken(key, f"must have at least {fewest}", item["input"], "add some")
        case "too_long":
            most = counted(item["ctx"]["max_length"], "value")
            return RuleBroken(key, f"must have at most {most}", item["input"], "remove some")
        case kind if kind in _COLLECTIONS:
            rule, remedy = _COLLECTIONS[kind]
            return RuleBroken(key, rule, item["input"], remedy)
        case _:
            return RuleBroken(key, f"{item['msg'][0].lower()}{item['msg'][1:]}", item["input"])


def _key(location: tuple[int | str, ...], model: type[BaseModel], *, unknown: bool) -> str:
    """The dotted key at a location, without what pydantic adds to it: tags of unions, indices of lists and mappings.

    Args:
        unknown: the last part is a key that its section does not know.
    """
    section: type[BaseModel] | None = model
    parts = []
    for index, part in enumerate(location):
        if section is None:
            break
        if part in section.model_fields or (unknown and index == len(location) - 1):
            parts.append(str(part))
            section = section_at(section, str(part))
    key = ".".join(parts)
    return key if key.isprintable() and len(key) <= _LONGEST_KEY else shown(key)
