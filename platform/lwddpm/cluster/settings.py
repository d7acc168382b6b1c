"""Ray's settings for the length of a block. Imports no Ray: some must be set before that."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lwddpm.offline import environment_variables

# Bytes that Ray adds to the path of its folder: at the longest a process id of 7 digits.
SOCKETS_BELOW = len("/session_2026-11-27_02-33-58_875627_4194304/sockets/plasma_store")


@contextmanager
def ray_settings(environment: Mapping[str, str], log_level: int) -> Iterator[None]:
    """Set environment variables that Ray reads in this process, and how much it logs; put both back at the end.

    Args:
        environment: name to value. Where the user may decide, pass `os.environ.get(name, default)`.
        log_level: of the logger `ray` and those beneath it, such as logging.ERROR.
    """
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(log_level)
    try:
        with environment_variables(environment):
            yield
    finally:
        logger.setLevel(before)
