"""Which code, on which machine, by which command: what a run's numbers come from."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from lwddpm.addresses import without_passwords

_VERSIONED = ("lwddpm", "torch", "ray", "mlflow", "diffusers", "torchmetrics", "pyarrow", "numpy")


def environment_tags() -> dict[str, str]:
    """MLflow tags: host, Python, command line without passwords, package versions, commit."""
    tags = {
        "lwddpm.host": platform.node(),
        "lwddpm.python": platform.python_version(),
        "lwddpm.command": without_passwords(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
    }
    tags |= {f"lwddpm.version.{name}": version(name) for name in _VERSIONED}
    commit = git_commit()
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def git_commit() -> str | None:
    """Commit of the checkout that this code comes from, or None outside one."""
    if "LWDDPM_COMMIT" in os.environ:  # a submitted job's code was uploaded from a checkout
        return os.environ["LWDDPM_COMMIT"] or None
    folder = Path(__file__).parent
    try:
        answer = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
