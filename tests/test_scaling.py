"""docs/scaling.md reckons with what the code does and names settings that exist."""

import re
from pathlib import Path

import yaml

from lwddpm.config import SearchJob, TrainJob
from lwddpm.config.keys import known_keys
from lwddpm.jobfile import load_job
from lwddpm.training.estimate import estimate_resources

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "scaling.md").read_text()


def test_every_setting_that_it_names_exists() -> None:
    values = yaml.safe_load((ROOT / "jobs" / "kubernetes" / "values.yaml").read_text())
    sections = {f"{name}.{key}" for name, inner in values.items() if isinstance(inner, dict) for key in inner}
    known = {*known_keys(SearchJob), *values, *sections}
    # `section.key` or `section.key: value`; paths of files have a slash or an ending
    named = re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)(?:: [^`]+)?`", TEXT)
    keys = {name for name in named if "." in name or f"`{name}: " in TEXT}
    assert len(keys) > 15
    assert keys <= known


def test_it_reckons_with_the_network_of_the_paper() -> None:
    job = load_job("paper")
    assert isinstance(job, TrainJob)
    needs = estimate_resources(job)
    gradient_mb = needs.parameters * 4 / 1e6
    for number in (
        f"{needs.parameters:,}",
        f"{gradient_mb:.1f} MB",
        f"{4 * gradient_mb:.0f} MB",
        f"{needs.step_tflop:.2f} TFLOP for {job.training.batch_size}",
        f"{needs.step_tflop / job.training.batch_size:.3f} TFLOP",
        f"{needs.step_tflop / job.training.batch_size / 3:.3f} TFLOP",
    ):
        assert number in TEXT, number
