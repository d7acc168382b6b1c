"""The one family of errors that a user is meant to read.

Every message states the rule that was broken, the value that broke it and the remedy. The command line prints the
message alone (no stack trace) and exits with the class's `exit_code`: 2 for wrong input, 1 for a failure.
"""

from collections.abc import Mapping
from typing import Any


class LwddpmError(Exception):
    """Root of all errors that this platform raises on purpose."""

    exit_code = 1


class ConfigError(LwddpmError):
    """A job file, an override or a command-line value breaks a rule."""

    exit_code = 2


class DataError(LwddpmError):
    """The source or the prepared dataset cannot be used."""

    exit_code = 2


class CheckpointError(LwddpmError):
    """A checkpoint or model file is missing, damaged or does not fit the config."""


class JobError(LwddpmError):
    """A job started correctly and failed."""


def to_dict(error: LwddpmError) -> dict[str, Any]:
    """An error for another process: plain data, whatever can be unpickled there."""
    kind = next(each for each in type(error).__mro__ if each.__module__ == __name__)
    return {"kind": kind.__name__, "message": str(error), "exit_code": error.exit_code}


def from_dict(record: Mapping[str, Any]) -> LwddpmError:
    """The error of another process: of its class or, where that is unknown here, a JobError; with its exit code."""
    classes = {each.__name__: each for each in (LwddpmError, ConfigError, DataError, CheckpointError, JobError)}
    error = classes.get(record["kind"], JobError)(record["message"])
    error.exit_code = record["exit_code"]
    return error
