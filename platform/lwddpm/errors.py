"""The one family of errors that a user is meant to read.

Every message states the rule that was broken, the value that broke it and the remedy. The command line prints the
message alone (no stack trace) and exits with the class's `exit_code`: 2 for wrong input, 1 for a failure.
"""


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
