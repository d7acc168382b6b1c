import pickle

import pytest
from pydantic import ValidationError

from lwddpm.config import CompareJob, RuleBroken, TrainJob, shown
from lwddpm.config.refused import broken_rules


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (RuleBroken("a.b", "must be even", 3, "try 2 or 4"), "a.b: must be even, got 3; try 2 or 4"),
        (RuleBroken("", "must be even", 3), "must be even, got 3"),
        (RuleBroken("a", "must be given", None), "a: must be given, got null"),
        (RuleBroken("a", "unknown key", remedy="did you mean b?"), "a: unknown key; did you mean b?"),
        (RuleBroken("a", "must be: x, got y; z", "p: q, got r; s"), "a: must be: x, got y; z, got 'p: q, got r; s'"),
    ],
)
def test_a_broken_rule_says_key_rule_value_and_remedy(broken: RuleBroken, expected: str) -> None:
    assert str(broken) == expected
    again = pickle.loads(pickle.dumps(broken))  # workers hand errors to the driver
    assert (str(again), again.key, again.has_value) == (expected, broken.key, broken.has_value)


def test_a_rule_of_a_section_gets_its_whole_key() -> None:
    assert str(RuleBroken("min", "must be even", 3).below("a.b")) == "a.b.min: must be even, got 3"
    assert str(RuleBroken("", "must be even", 3).below("a.b")) == "a.b: must be even, got 3"
    assert str(RuleBroken("a.b", "must be even", 3).below("")) == "a.b: must be even, got 3"


def test_values_are_shown_as_in_a_job_file_and_cut() -> None:
    assert shown((1, "a", None, True)) == "[1, 'a', null, true]"
    assert len(shown("x" * 10_000)) < 250
    assert len(shown([list(range(1000))] * 1000)) < 1000


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # a list's index and the tag of a union are not part of the key; two elements have a rule each
        ({"compare": {"seeds": ["a", 1, "b"]}}, [("compare.seeds", "a"), ("compare.seeds", "b")]),
        ({"workers": {"count": {"min": 0, "max": 2}}}, [("workers.count.min", 0)]),
        ({"workers": {"count": {"max": 1}}}, [("workers.count", {"min": 1, "max": 1})]),
        ({"workers": {"count": {"max": 2, "most": 3}}}, [("workers.count.most", ...)]),
        ({"compare": {"overrides": {"vae": {}}}}, [("compare.overrides", "vae")]),
        ({"compare": {"systems": ["gan", "gan"]}}, [("compare.systems", ("gan", "gan"))]),
        ({"training": {"compile": "perhaps"}}, [("training.compile", "perhaps")]),
        ({1: 2}, [("", 1)]),
        ({"data": {}}, [("data.source", ...)]),
        # a value that reads like a message is a value
        ({"training": {"lr": "x: y, got 1"}}, [("training.lr", "x: y, got 1")]),
        ({"model": {"family": "gan", "attention": "se, got: 1"}}, [("model.family", "gan")]),
    ],
)
def test_what_pydantic_refuses_has_the_same_structure(values: dict, expected: list[tuple[str, object]]) -> None:
    with pytest.raises(ValidationError) as refused:
        CompareJob.model_validate({"kind": "compare", "name": "a", "data": {"source": "phantom"}} | values)
    broken = broken_rules(refused.value, CompareJob)
    assert [(rule.key, rule.value) for rule in broken] == expected


def test_the_members_of_a_union_ask_for_one_thing_or_the_other() -> None:
    values = {"kind": "train", "name": "a", "data": {"source": "phantom"}, "training": {"compile": "perhaps"}}
    with pytest.raises(ValidationError) as refused:
        TrainJob.model_validate(values)
    (broken,) = broken_rules(refused.value, TrainJob)
    assert "boolean" in broken.rule
    assert "; or input should be 'auto'" in broken.rule


@pytest.mark.parametrize("given", ["percentile", 7, None, {"low": 1}, [1], [1, 2, 3], ["a", 1], [float("nan"), 1]])
def test_an_intensity_that_is_none_is_told_as_one_rule_with_value_and_remedy(given: object) -> None:
    with pytest.raises(ValidationError) as refused:
        TrainJob.model_validate({"kind": "train", "name": "a", "data": {"source": "phantom", "intensity": given}})
    (broken,) = broken_rules(refused.value, TrainJob)
    assert (broken.key, broken.rule) == (
        "data.intensity",
        "must be percentiles, full or a window [low, high] of two finite numbers",
    )
    assert f"got {shown(given)}; write percentiles, full, or a window" in str(broken)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"model": {"dim_mults": 4}}, "model.dim_mults: must be a list, got 4; write a list, such as [1, 2]"),
        ({"model": {"dim_mults": [1]}}, "model.dim_mults: must have at least 2 values, got [1]; add some"),
        ({"data": {"splits": [1.0]}}, "data.splits: must have more values, got [1.0]; add them"),
        ({"data": {"splits": [1, 0, 0, 0]}}, "data.splits: must have at most 3 values, got [1, 0, 0, 0]; remove some"),
        ({"workers": 3}, "workers: must be a mapping, got 3; write keys with values, such as {key: value}"),
    ],
)  # fmt: skip
def test_lists_and_mappings_are_asked_for_as_a_job_file_has_them(values: dict, expected: str) -> None:
    data = {"source": "phantom"} | values.get("data", {})
    with pytest.raises(ValidationError) as refused:
        TrainJob.model_validate({"kind": "train", "name": "a"} | values | {"data": data})
    assert [str(rule) for rule in broken_rules(refused.value, TrainJob)] == [expected]
