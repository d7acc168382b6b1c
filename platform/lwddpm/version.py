"""Which code this is: what checkpoints, models and runs are marked with."""

import os
import subprocess
from functools import lru_cache
from pathlib import Path

from lwddpm import __version__


def git_commit() -> str | None:
    """Commit of the checkout that this code comes from, or None outside one."""
    if "LWDDPM_COMMIT" in os.environ:  # a submitted job's code was uploaded from a checkout
        return os.environ["LWDDPM_COMMIT"] or None
    here = Path(__file__)
    tracked = _git("ls-files", "--error-unmatch", here.name, folder=here.parent)  # not installed in another's checkout
    return tracked and _git("rev-parse", "HEAD", folder=here.parent)


def _git(*arguments: str, folder: Path) -> str | None:
    """What a git command says; None where it fails, or where there is no git."""
    try:
        output = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return output.stdout.strip()


@lru_cache(maxsize=1)
def code_version() -> str:
    """The package's version, and the commit where it is known: `0.1.0+93f68dc1a2b3`."""
    commit = git_commit()
    return f"{__version__}+{commit[:12]}" if commit else __version__
