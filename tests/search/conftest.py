from collections.abc import Callable
from pathlib import Path

import pytest

from lwddpm.config import SearchJob
from lwddpm.jobfile import load_job
from lwddpm.search.definition import Definition


@pytest.fixture
def search_job() -> Callable[..., SearchJob]:
    """Builds the shipped search job; arguments are further `key=value` overrides."""

    def build(*overrides: str) -> SearchJob:
        job = load_job("search_demo", overrides)
        assert isinstance(job, SearchJob)
        return job

    return build


@pytest.fixture
def definition() -> Definition:
    """Of a study with one objective."""
    return Definition(
        space={"training.lr": {"name": "FloatDistribution", "attributes": {"low": 1e-5, "high": 1e-2}}},
        sampler="tpe",
        seed=0,
        objectives=("eval/fd_lite0",),
        scheduler="asha",
        prune_on="eval/fd_lite0",
        max_steps=90,
        grace_steps=30,
        reduction_factor=3,
        job="j",
        proxy="p",
        constraints={},
    )


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"
