from collections.abc import Callable

import pytest

from lwddpm.config import SearchJob
from lwddpm.jobfile import load_job


@pytest.fixture
def search_job() -> Callable[..., SearchJob]:
    """Builds the shipped search job; arguments are further `key=value` overrides."""

    def build(*overrides: str) -> SearchJob:
        job = load_job("search_demo", overrides)
        assert isinstance(job, SearchJob)
        return job

    return build
