"""`offline: true`: nothing leaves this machine but what the job itself names (its tracking store, its Ray cluster)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

# Ours, then what the libraries know. Inherited by Ray's workers here, handed to those of a cluster.
ENVIRONMENT = {"LWDDPM_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@contextmanager
def offline(wanted: bool) -> Iterator[None]:
    """Keep this process, and those it starts, from fetching anything while the block runs."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    if wanted:
        os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def is_offline() -> bool:
    return os.environ.get("LWDDPM_OFFLINE", "") not in ("", "0")
