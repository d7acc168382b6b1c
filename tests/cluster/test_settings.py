import contextlib
import logging
import os

import pytest
import ray

from lwddpm.cluster.session import Session
from lwddpm.cluster.settings import ray_settings
from lwddpm.config import WorkersConfig


def test_variables_and_log_level_are_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "1")
    monkeypatch.delenv("TUNE_GLOBAL_CHECKPOINT_S", raising=False)
    logger = logging.getLogger("ray")
    environment, level = dict(os.environ), logger.level
    variables = {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_GLOBAL_CHECKPOINT_S": "9"}
    with contextlib.suppress(ZeroDivisionError), ray_settings(variables, logging.CRITICAL):
        assert {name: os.environ[name] for name in variables} == variables
        assert logger.level == logging.CRITICAL
        raise ZeroDivisionError
    assert dict(os.environ) == environment
    assert logger.level == level


@pytest.mark.cluster
def test_a_session_leaves_ray_as_it_found_it(monkeypatch: pytest.MonkeyPatch) -> None:
    if ray.is_initialized():
        pytest.skip("Ray was started for other tests of this process, with settings of its own")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # the user's own
    monkeypatch.delenv("RAY_IGNORE_UNHANDLED_ERRORS", raising=False)
    level = logging.getLogger("ray").level
    with Session(WorkersConfig()) as session:
        session.connect()
        assert os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "1"
        assert os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] == "1"
    assert not ray.is_initialized()
    assert "RAY_IGNORE_UNHANDLED_ERRORS" not in os.environ
    assert os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "1"
    assert logging.getLogger("ray").level == level
