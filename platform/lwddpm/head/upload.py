"""What is uploaded with a submitted job: the platform's code, the shipped files, the job. No data, runs or weights."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

import lwddpm
from lwddpm.addresses import has_password
from lwddpm.config import AnyJob, SearchJob, TrainingJob
from lwddpm.errors import ConfigError
from lwddpm.jobfile import find_file, flattened, shipped

# Only these are uploaded, whatever else lies in the checkout.
_SUFFIXES = (".css", ".html", ".ini", ".js", ".json", ".md", ".py", ".svg", ".toml", ".typed", ".yaml", ".yml")
LIMIT_MIB = 10.0  # Ray's job server takes 100
JOB_FILE = "job.yaml"


@contextmanager
def staged(job: AnyJob | None) -> Iterator[Path]:
    """A folder laid out as a checkout, with the resolved job, if any, as `job.yaml`; removed afterwards.

    platform/lwddpm  jobs/  search_spaces/  pyproject.toml  job.yaml

    Raises:
        ConfigError: it is larger than the limit, naming its ten largest files; or the job holds a password.
    """
    with tempfile.TemporaryDirectory(prefix="lwddpm-upload-") as name:
        folder = Path(name)
        _copy(Path(lwddpm.__file__).parent, folder / "platform" / "lwddpm")
        for shared in ("jobs", "search_spaces"):
            _copy(shipped(shared), folder / shared)
        (folder / "pyproject.toml").write_text("# marks this folder as a checkout\n")
        if job is not None:
            (folder / JOB_FILE).write_text(yaml.safe_dump(_settings(job, folder), sort_keys=False))
        _check_size(folder)
        yield folder


def _settings(job: AnyJob, folder: Path) -> dict[str, Any]:
    """The resolved job; a search space and a policy of the user's own are taken along."""
    settings = job.model_dump(mode="json")
    if isinstance(job, SearchJob):
        space = find_file(job.search.space, "search_spaces", "search space")
        shutil.copyfile(space, folder / "search_spaces" / space.name)
        settings["search"]["space"] = space.stem
    if isinstance(job, TrainingJob) and job.registry is not None and job.registry.gate is not None:
        policy = find_file(job.registry.gate, "jobs/gates", "policy")
        shutil.copyfile(policy, folder / "jobs" / "gates" / policy.name)
        settings["registry"]["gate"] = policy.stem
    if job.notify.url is not None:
        raise ConfigError(
            "notify.url: is not uploaded, since a submitted job can be read by others; set LWDDPM_NOTIFY_URL in the "
            "environment of the cluster's nodes (docs/gate.md)"
        )
    _refuse_passwords(settings)
    return settings


def _copy(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        hidden = any(part.startswith((".", "__pycache__")) for part in relative.parts)
        if path.is_file() and path.suffix in _SUFFIXES and not hidden:
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / relative)


def _check_size(folder: Path) -> None:
    sizes = {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(sizes.values()) / 2**20
    if total > LIMIT_MIB:
        largest = sorted(sizes, key=lambda path: sizes[path], reverse=True)[:10]
        listed = "\n".join(f"  {sizes[path] / 2**20:8.2f} MiB  {path}" for path in largest)
        raise ConfigError(
            f"the upload must be at most {LIMIT_MIB:g} MiB, is {total:.1f}; take out what is not code, or put it on "
            f"the cluster's storage; the ten largest files:\n{listed}"
        )


def _refuse_passwords(settings: dict[str, Any]) -> None:
    """A job's settings can be read by whoever may list jobs or runs."""
    for key, value in flattened(settings).items():
        if isinstance(value, str) and has_password(value):
            raise ConfigError(
                f"{key}: must hold no password, since a submitted job can be read by others; put it into the "
                "environment of the cluster's nodes (docs/cluster.md)"
            )
