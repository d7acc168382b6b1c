from collections.abc import Callable

import pytest

from lwddpm.config import SearchJob
from lwddpm.errors import ConfigError
from lwddpm.search.budget import Budget

Build = Callable[..., SearchJob]


@pytest.mark.parametrize(
    ("overrides", "rungs"),
    [
        ((), (30, 90, 270)),
        (("search.max_steps=100",), (30, 90, 100)),
        (("search.grace_steps=null",), (30, 90, 270)),
        (("search.max_steps=null", "search.grace_steps=null"), (67, 201, 600)),
        (("search.scheduler=median", "search.grace_steps=100"), (100, 200, 270)),
        (("search.scheduler=none",), (270,)),
    ],
)
def test_rungs(overrides: tuple[str, ...], rungs: tuple[int, ...], search_job: Build) -> None:
    assert Budget.of(search_job(*overrides), 480).rungs == rungs


@pytest.mark.parametrize(
    ("override", "rule"),
    [("search.max_steps=700", "at most the 600 steps"), ("search.grace_steps=300", "at most search.max_steps = 270")],
)
def test_a_trial_is_no_longer_than_its_training_nor_shorter_than_its_grace(
    override: str, rule: str, search_job: Build
) -> None:
    with pytest.raises(ConfigError, match=rule):
        Budget.of(search_job(override), 480)
