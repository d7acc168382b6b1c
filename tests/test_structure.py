"""Rules of the repository that a reader may rely on."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "platform" / "lwddpm"
BOARD = ROOT / "dashboards" / "lwddpm_board"
# a package may import itself and what stands in an earlier group
ORDER = [
    {"errors"},
    {"families", "offline", "progress", "wording"},
    {"files"},
    {"config"},
    {"jobfile"},
    {"data"},
    {"models"},
    {"diffusion"},
    {"evaluation"},
    {"report"},
    {"training"},
    {"tracking"},
    {"search"},
    {"cluster"},
    {"kinds", "head"},
    {"cli"},
    {"__main__"},
]
INDEPENDENT = ({"data", "models", "diffusion"}, {"kinds", "head"})
FORBIDDEN = {
    **{
        part: {"ray", "mlflow", "optuna"}
        for part in (
            "errors",
            "families",
            "files",
            "config",
            "jobfile",
            "data",
            "models",
            "diffusion",
            "evaluation",
            "report",
            "training",
        )
    },
    "tracking": {"ray", "optuna"},
    "search": {"ray", "mlflow"},
}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" if node.module == "lwddpm" else node.module for alias in node.names}
    return found


def _part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    part = _part(path)
    if part == "__init__":
        return
    rank = {name: number for number, group in enumerate(ORDER) for name in group}
    for name in _imports(path):
        top, _, rest = name.partition(".")
        assert top not in FORBIDDEN.get(part, set()), f"{part} must not import {top}"
        target = rest.partition(".")[0]
        if top != "lwddpm" or target in ("", "__version__"):
            continue
        assert target == part or rank[target] < rank[part], f"{part} must not import {target}"
        for group in INDEPENDENT:
            assert not {part, target} <= group or part == target, f"{part} and {target} must not know each other"


def test_only_its_verb_knows_the_board() -> None:
    knowing = {path.relative_to(SOURCE) for path in SOURCE.rglob("*.py") if any(_is_board(n) for n in _imports(path))}
    assert knowing == {Path("cli/dashboard.py")}


@pytest.mark.parametrize("path", sorted(BOARD.rglob("*.py")), ids=lambda p: p.name)
def test_the_board_stands_on_the_platform_and_not_on_its_command_line(path: Path) -> None:
    for name in _imports(path):
        assert not name.startswith("lwddpm.cli"), f"{path.name} must not import {name}"
        assert name.partition(".")[0] != "ray" or path.name == "draw_process.py"


def _is_board(name: str) -> bool:
    return name.partition(".")[0] == "lwddpm_board"


def test_core_runs_with_ray_mlflow_and_optuna_blocked() -> None:
    code = "import sys\nfor n in ('ray', 'mlflow', 'optuna'): sys.modules[n] = None\nimport lwddpm.training.loop"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_source_root_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    code = "import platform; platform.python_version(); import torch"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, lwddpm.cli\n"
        "heavy = {'torch', 'ray', 'mlflow', 'numpy', 'matplotlib', 'pydantic', 'pyarrow', 'fastapi'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


DOCUMENTS = [path for folder in (".", "docs", "dashboards") for path in sorted((ROOT / folder).glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_in_the_documents_resolve(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_shipped_job_says_what_it_is_for() -> None:
    for job in (ROOT / "jobs").glob("*.yaml"):
        header = [line for line in job.read_text().splitlines() if line.startswith("#")]
        text = "\n".join(header)
        assert "command" in text, job.name
        assert "expect" in text, job.name
