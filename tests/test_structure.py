"""Rules of the repository that a reader may rely on."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lwddpm import __version__

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (ROOT / "platform" / "lwddpm", ROOT / "dashboards" / "lwddpm_board")
PROGRAMS = Path(sys.executable).parent
# private modules of libraries are imported here alone, each behind one function with a test of its own
PRIVATE_IMPORTS = {"cluster/preemption.py"}


def _run(*command: str) -> None:
    """Run a program of the environment; its output is the test's message."""
    run = subprocess.run([str(PROGRAMS / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_imports_keep_the_contracts() -> None:
    _run("lint-imports", "--no-cache")


def test_what_is_imported_is_declared_and_what_is_declared_is_used() -> None:
    _run("deptry", "--no-ansi", "platform", "dashboards/lwddpm_board")


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.name)
def test_private_modules_of_libraries_are_imported_in_guarded_places_alone(source: Path) -> None:
    importing = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if any(re.search(r"(^|\.)_(?!_)", name) for name in _imported_from_libraries(path))
    }
    assert importing <= PRIVATE_IMPORTS


def _imported_from_libraries(path: Path) -> set[str]:
    """Dotted names of all that a file imports from elsewhere than the platform."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if not name.startswith("lwddpm")}


@pytest.fixture(scope="module")
def in_the_checkout() -> str:
    """How far a process comes that stands in the checkout: its imports are made once, for they take seconds."""
    code = """
import platform, sys
platform.python_version()
import torch
print("torch")
for name in ("ray", "mlflow", "optuna"): sys.modules[name] = None
import lwddpm.training.loop
print("loop")
"""
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def test_core_runs_with_ray_mlflow_and_optuna_blocked(in_the_checkout: str) -> None:
    assert "loop" in in_the_checkout


def test_the_source_root_does_not_shadow_the_standard_library(in_the_checkout: str) -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert "torch" in in_the_checkout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, lwddpm.cli\n"
        "heavy = {'torch', 'ray', 'mlflow', 'numpy', 'matplotlib', 'pydantic', 'pyarrow', 'fastapi'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_looking_at_models_and_searches_imports_no_torch() -> None:
    """`lwddpm models list` and `log`, `lwddpm search show`: half of their time would be that."""
    code = "import sys"
    for module in ("search.ranking", "tracking.registry", "tracking.registry_log"):
        code += f"\nimport lwddpm.{module}\nassert 'torch' not in sys.modules, '{module}'"
    subprocess.run([sys.executable, "-c", code], check=True)


FOLDERS = (".", "docs", "dashboards", "dashboards/grafana", "search_spaces")
DOCUMENTS = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_in_the_documents_resolve(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_last_release_is_the_version_everywhere() -> None:
    releases = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[:2] == ["Unreleased", __version__]
    for file in ("Dockerfile", "jobs/kubernetes/values.yaml"):
        assert set(re.findall(r"lwddpm:(\d[\d.]*)", (ROOT / file).read_text())) == {__version__}, file


def test_every_shipped_job_says_what_it_is_for() -> None:
    for job in (ROOT / "jobs").glob("*.yaml"):
        header = [line for line in job.read_text().splitlines() if line.startswith("#")]
        text = "\n".join(header)
        assert "command" in text, job.name
        assert "expect" in text, job.name


def _hooks() -> dict[str, dict[str, str]]:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    return {hook["id"]: hook for repository in config["repos"] for hook in repository["hooks"]}


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("scan.nii", True),
        ("tests/data/sub-01_T1w.nii.gz", True),
        ("scans/IM-0001.DCM", True),
        ("weights.pt", True),
        ("docs/images/run.png", False),
        ("platform/lwddpm/data/sources.py", False),
        ("docs/dcm.md", False),
        ("requirements.ptx", False),
    ],
)
def test_scans_and_weights_are_refused_before_a_commit(name: str, refused: bool) -> None:
    assert bool(re.search(_hooks()["no-medical-images-or-weights"]["files"], name)) == refused


def test_hooks_run_what_the_environment_has() -> None:
    """Hubs of hooks cannot be reached from everywhere, so each hook is a program that is installed with the others."""
    _run("pre-commit", "validate-config")
    programs = {h["entry"].split()[0] for h in _hooks().values() if h["language"] == "system"}
    missing = {program for program in programs if not (PROGRAMS / Path(program).name).exists()}
    assert len(programs) >= 4
    assert not missing
