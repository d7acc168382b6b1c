"""Errors that cross processes keep their class, message and exit code, whatever the other side knows."""

import json

import pytest

from lwddpm import errors
from lwddpm.errors import CheckpointError, ConfigError, DataError, JobError, LwddpmError


class UnknownElsewhereError(DataError):
    """As a module that the other process never imports defines one."""

    exit_code = 7


@pytest.mark.parametrize("kind", [LwddpmError, ConfigError, DataError, CheckpointError, JobError])
def test_an_error_arrives_as_itself(kind: type[LwddpmError]) -> None:
    arrived = errors.from_dict(json.loads(json.dumps(errors.to_dict(kind("rule, value, remedy")))))
    assert (type(arrived), str(arrived), arrived.exit_code) == (kind, "rule, value, remedy", kind.exit_code)


def test_a_class_of_another_module_arrives_as_its_nearest_ancestor_with_its_own_exit_code() -> None:
    arrived = errors.from_dict(errors.to_dict(UnknownElsewhereError("no")))
    assert (type(arrived), arrived.exit_code) == (DataError, 7)


def test_a_name_that_this_version_does_not_know_becomes_a_job_error() -> None:
    arrived = errors.from_dict({"kind": "QuotaError", "message": "no room", "exit_code": 2})
    assert (type(arrived), str(arrived), arrived.exit_code) == (JobError, "no room", 2)
