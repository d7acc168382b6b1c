"""What is uploaded with a submitted job: enough to run it, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lwddpm.errors import ConfigError
from lwddpm.head import upload
from lwddpm.head.upload import staged
from lwddpm.jobfile import load_job

ROOT = Path(__file__).resolve().parents[2]


def test_the_upload_is_a_small_checkout_that_runs_the_same_job() -> None:
    job = load_job("paper", ["data.source=phantom", "training.lr=1e-4"])
    with staged(job) as folder:
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        assert {path.parts[0] for path in files} == {"platform", "jobs", "search_spaces", "pyproject.toml", "job.yaml"}
        ours = subprocess.run(["git", "ls-files", "platform"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert set(map(Path, ours.stdout.split())) <= set(files)
        assert sum((folder / path).stat().st_size for path in files) < 2**21
        code = "from lwddpm.jobfile import load_job; print(load_job('job.yaml').digest(), load_job('demo').name)"
        environment = os.environ | {"PYTHONPATH": "platform"}
        command = [sys.executable, "-c", code]
        printed = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        assert printed.stdout.split() == [job.digest(), "demo"]
    assert not folder.exists()


def test_data_weights_and_hidden_files_stay_here(tmp_path: Path) -> None:
    source = tmp_path / "package"
    for name in ("code.py", "weights.safetensors", "slice.png", ".secret.py", ".git/config.ini", "__pycache__/x.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("")
    upload._copy(source, tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").rglob("*")] == ["code.py"]


def test_too_much_is_refused_with_the_ten_largest_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "LIMIT_MIB", 0.1)
    with pytest.raises(ConfigError, match=r"at most 0.1 MiB") as refusal, staged(load_job("demo")):
        pass
    listed = str(refusal.value).splitlines()[1:]
    sizes = [float(line.split()[0]) for line in listed]
    assert len(sizes) == 10
    assert sizes == sorted(sizes, reverse=True)
    code = max((ROOT / "platform").rglob("*.py"), key=lambda path: path.stat().st_size)
    assert str(code.relative_to(ROOT)) in str(refusal.value)


def test_a_password_in_a_job_is_refused_and_not_repeated() -> None:
    job = load_job("search_demo", ["search.storage=postgresql://me:hunter2@host/optuna"])
    with pytest.raises(ConfigError, match=r"search.storage: must hold no password") as refusal, staged(job):
        pass
    assert "hunter2" not in str(refusal.value)


def test_a_search_space_of_ones_own_is_taken_along(tmp_path: Path) -> None:
    space = tmp_path / "mine.yaml"
    space.write_text("training.lr:\n  float: {low: 1.0e-5, high: 1.0e-3, log: true}\n")
    with staged(load_job("search_demo", [f"search.space={space}"])) as folder:
        assert (folder / "search_spaces" / "mine.yaml").read_text() == space.read_text()
        assert load_job(str(folder / "job.yaml")).search.space == "mine"  # type: ignore[union-attr]


def test_what_a_job_leaves_to_a_models_preset_is_left_to_it_there() -> None:
    for kind, section in (("sample", "sampling"), ("evaluate", "evaluation")):
        job = load_job(kind, [f"{section}.eta=0.5", f"{section}.sampler=null"])
        with staged(job) as folder:
            there = load_job(str(folder / "job.yaml"))
        assert there == job
        given = getattr(there, section).model_fields_set
        assert given == getattr(job, section).model_fields_set
        assert "eta" in given
        assert "num_inference_steps" not in given
