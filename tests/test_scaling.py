"""docs/scaling.md and docs/cluster.md speak of settings and sizes that exist."""

import re
from pathlib import Path

import pytest
import yaml

from lwddpm.config import SearchJob, TrainJob
from lwddpm.jobfile import known_keys, load_job
from lwddpm.models.unet import count_parameters
from lwddpm.training.estimate import estimate

ROOT = Path(__file__).resolve().parents[1]
SCALING = (ROOT / "docs" / "scaling.md").read_text()


@pytest.mark.parametrize("document", ["scaling.md", "cluster.md"])
def test_every_setting_that_is_named_exists(document: str) -> None:
    values = yaml.safe_load((ROOT / "jobs" / "kubernetes" / "values.yaml").read_text())
    known = {
        *known_keys(SearchJob),
        *(f"{a}.{b}" for a, inner in values.items() if isinstance(inner, dict) for b in inner),
    }
    sections = {key.partition(".")[0] for key in known if "." in key}
    text = re.sub(r"```.*?```", "", (ROOT / "docs" / document).read_text(), flags=re.DOTALL)
    named = set(re.findall(r"`([a-z0-9_]+\.[a-z0-9_]+)[`:=]", text)) - {"values.yaml", "mlflow.db"}
    settings = {key for key in named if key.partition(".")[0] in sections}
    assert settings <= known, settings - known
    assert len(settings) > (10 if document == "scaling.md" else 2)


def test_the_sizes_are_those_of_the_paper_job() -> None:
    job = load_job("paper")
    assert isinstance(job, TrainJob)
    parameters = count_parameters(job.model)
    assert f"{parameters:,}" in SCALING
    assert f"{parameters * 4 / 1e6:.1f} MB" in SCALING
    assert f"{parameters * 16 / 1e6:.0f} MB" in SCALING  # weights, EMA and two moments
    assert f"{estimate(job).step_tflop:.2f} TFLOP" in SCALING
    for num_gpus in (8, 64, 1000):
        assert f"{2 * (num_gpus - 1) / num_gpus * parameters * 4 / 1e6:.0f} MB" in SCALING
    assert f"`training.batch_size` = {job.training.batch_size}" in SCALING
    assert f"`training.log_every_steps` = {job.training.log_every_steps}" in SCALING
