"""Which code, on which machine, by which command: what a run's numbers come from."""

import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

from lwddpm.addresses import without_passwords
from lwddpm.version import git_commit

_VERSIONED = ("lwddpm", "torch", "ray", "mlflow", "diffusers", "torchmetrics", "pyarrow", "numpy")


def environment_tags() -> dict[str, str]:
    """MLflow tags: host, Python, command line without passwords, package versions, commit."""
    tags = {
        "lwddpm.host": platform.node(),
        "lwddpm.python": platform.python_version(),
        "lwddpm.command": _command([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    tags |= {f"lwddpm.version.{name}": version(name) for name in _VERSIONED}
    commit = git_commit()
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def _command(words: list[str]) -> str:
    """A command line without passwords, nor the address of a webhook, which may hold a token."""
    shown = [re.sub(r"(?<=notify\.url=).*|(?<=notify=).*", "...", word) for word in words]
    return without_passwords(" ".join(shown))
