"""What the step of the diffusion models learns from, by the equations of its parts."""

from collections.abc import Callable

import pytest
import torch

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.training.denoising import DenoisingStep
from lwddpm.training.schedule import Schedule

CPU = torch.device("cpu")
Build = Callable[..., DenoisingStep]


@pytest.fixture
def build(tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset) -> Build:
    """Builds a step that is ready to be taken; arguments are overrides of the smallest job."""

    def make(*overrides: str) -> DenoisingStep:
        job = tiny_job(*overrides)
        step = DenoisingStep(job, tiny_dataset, Schedule.of(job.training, tiny_dataset.num("train")), CPU)
        step.distribute()
        return step

    return make


def test_adam_has_the_betas_of_the_job(build: Build) -> None:
    """Without memory of earlier gradients (both 0) each weight moves by the learning rate, whatever its gradient."""
    step = build("training.adam_betas=[0,0]", "training.lr=1e-2", "training.lr_schedule=constant")
    for number in range(2):
        before = torch.cat([p.detach().clone().flatten() for p in step.model.parameters()])
        step.take(number)
        moved = (torch.cat([p.detach().flatten() for p in step.model.parameters()]) - before).abs()
        moved = moved[moved > 0]  # layers that start at zero let no gradient through in the first step
        assert len(moved) > 0
        most = moved.quantile(0.8)  # a gradient near Adam's epsilon moves a weight by less
        torch.testing.assert_close(most, torch.tensor(1e-2), rtol=1e-3, atol=0)
    assert build().optimizers["optimizer"].param_groups[0]["betas"] == (0.9, 0.999)
