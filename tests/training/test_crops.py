"""Training on crops: which steps, which places, and what the network is given of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lwddpm.config import PatchesConfig, SamplingConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.diffusion.sampling import generate
from lwddpm.models.unet import whole_coordinates
from lwddpm.training.augmentation import augmentation_draw, augmented
from lwddpm.training.crops import crop_draw, cropped, on_crops
from lwddpm.training.denoising import DenoisingStep
from lwddpm.training.loop import train
from lwddpm.training.reporter import RecordingReporter
from lwddpm.training.schedule import Schedule
from lwddpm.training.stored_model import load_model

CPU = torch.device("cpu")
CROPS = "training.patches={share: 0.5, size: 0.5}"


def steps_on_crops(patches: PatchesConfig, num_steps: int) -> list[int]:
    return [step for step in range(num_steps) if on_crops(patches, step, num_steps)]


@pytest.mark.parametrize("share", [0, 0.1, 0.29, 0.5, 0.7, 1])
def test_every_part_of_the_training_has_its_share_of_crops(share: float) -> None:
    chosen = np.array(steps_on_crops(PatchesConfig(share=share), 1000))
    for first in range(0, 1000, 20):
        within = ((chosen >= first) & (chosen < first + 20)).sum()
        assert abs(within - 20 * share) <= 1
    assert len(chosen) == pytest.approx(1000 * share, abs=1)


@pytest.mark.parametrize(("share", "until"), [(0.5, 0.5), (0.5, 0.75), (0.2, 0.8), (1, 1)])
def test_after_the_part_that_has_crops_all_slices_are_whole(share: float, until: float) -> None:
    chosen = steps_on_crops(PatchesConfig(share=share, until=until), 200)
    assert len(chosen) == pytest.approx(200 * share, abs=1)
    assert max(chosen) < 200 * until
    if share == until:
        assert chosen == list(range(len(chosen)))


def test_without_crops_there_is_no_step_on_them() -> None:
    assert not any(on_crops(None, step, 10) for step in range(10))


def test_places_are_of_the_seed_and_the_step_and_differ_by_slice() -> None:
    first = crop_draw(0, 3, 16, 32, 16)
    assert np.array_equal(first, crop_draw(0, 3, 16, 32, 16))
    assert not np.array_equal(first, crop_draw(0, 4, 16, 32, 16))
    assert not np.array_equal(first, crop_draw(1, 3, 16, 32, 16))
    assert len(np.unique(first, axis=0)) > 8
    every = np.concatenate([crop_draw(0, step, 16, 32, 16) for step in range(600)])
    counts = np.stack([np.bincount(column, minlength=17) for column in every.T])
    assert counts.shape == (2, 17), "from the first to the last place at which a crop fits"
    np.testing.assert_allclose(counts / len(every), 1 / 17, atol=5 * (1 / 17 / len(every)) ** 0.5)


def test_crops_are_the_region_itself_and_say_where_it_lies() -> None:
    x, corners = torch.randn(3, 2, 12, 10), torch.tensor([[0, 0], [8, 3], [5, 6]])
    crops, places = cropped(x, corners, 4), cropped(whole_coordinates(x), corners, 4)
    for image, crop, place, (row, column) in zip(x, crops, places, corners.tolist(), strict=True):
        assert torch.equal(crop, image[:, row : row + 4, column : column + 4])
        expected = np.meshgrid(np.linspace(-1, 1, 10)[column : column + 4], np.linspace(-1, 1, 12)[row : row + 4])
        np.testing.assert_allclose(place, np.stack(expected), atol=1e-6)


class _Seen(torch.nn.Module):
    """Keeps what the network is called with."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.calls: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor, timesteps: Tensor, **known: Tensor) -> Tensor:
        self.calls.append({"x": x, "timesteps": timesteps, **known})
        prediction: Tensor = self.network(x, timesteps, **known)
        return prediction


def _seen(job: TrainJob, dataset: Dataset, num: int) -> list[dict[str, Tensor]]:
    step = DenoisingStep(job, dataset, Schedule.of(job.training, dataset.num("train")), CPU)
    step.distribute()
    step.network = seen = _Seen(step.network)
    for number in range(num):
        step.take(number)
    return seen.calls


def test_the_network_sees_noised_crops_of_changed_slices(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset
) -> None:
    """Changes and flips first, then the crop; timesteps and conditions are those of the slices."""
    also = ("training.augment=0.5", "model.conditions=[label]", "diffusion.intensity_gamma=0.5")
    whole = _seen(tiny_job(*also, "model.coordinates=true"), tiny_dataset, 2)
    crops = _seen(tiny_job(*also, CROPS), tiny_dataset, 2)
    assert set(whole[0]) == set(crops[0]) == {"x", "timesteps", "condition", "given"}
    assert all(torch.equal(crops[0][name], whole[0][name]) for name in whole[0])
    assert set(crops[1]) == {"x", "timesteps", "condition", "given", "coordinates"}
    for name in ("timesteps", "given"):
        assert torch.equal(crops[1][name].nan_to_num(-1), whole[1][name].nan_to_num(-1))

    job = tiny_job(*also, CROPS)
    step = DenoisingStep(job, tiny_dataset, Schedule.of(job.training, tiny_dataset.num("train")), CPU)
    step.take(0)
    draws: list[Tensor] = []
    slices = step.loader.slices
    step.loader.slices = lambda draw: draws.append(slices(draw)) or draws[-1]  # type: ignore[method-assign,func-returns-value]
    noises: list[Tensor] = []
    gaussian = step.loader.gaussian
    step.loader.gaussian = lambda *given: noises.append(gaussian(*given)) or noises[-1]  # type: ignore[method-assign,func-returns-value]
    step.take(1)
    changed = augmented(draws[0], torch.tensor(augmentation_draw(job.seed, 1, 8, 0.5)))
    corners = torch.tensor(crop_draw(job.seed, 1, 8, 16, 8))
    timesteps = crops[1]["timesteps"]
    x_0 = torch.stack([image[:, r : r + 8, c : c + 8] for image, (r, c) in zip(changed, corners.tolist(), strict=True)])
    assert noises[0].shape == x_0.shape
    expected = step.process.network_input(step.process.q_sample(x_0, timesteps, noises[0]), timesteps)
    torch.testing.assert_close(crops[1]["x"], expected)
    torch.testing.assert_close(crops[1]["coordinates"], cropped(whole_coordinates(changed), corners, 8))


def test_a_training_on_crops_draws_whole_slices(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, tmp_path: Path
) -> None:
    job = tiny_job(CROPS, "training.patches.until=0.75", "training.max_steps=60", "training.lr=4e-3")
    recorder = RecordingReporter()
    train(job, tiny_dataset, tmp_path, recorder, CPU)
    validation = list(recorder.series("val/loss").values())  # of whole slices
    assert validation[-1] < 0.85 * validation[0]
    network, saved = load_model(tmp_path / "model", CPU)
    assert saved.model.coordinates
    images = generate(network, job.diffusion, SamplingConfig(num_inference_steps=2), range(2), 16, CPU)
    assert (images.shape, images.dtype) == ((2, 16, 16), torch.uint8)


def test_crops_and_slices_are_compiled_for_themselves(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool | None] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, dynamic=None: asked.append(dynamic))
    for overrides in ((), (CROPS,)):
        job = tiny_job("training.compile=true", *overrides)
        DenoisingStep(job, tiny_dataset, Schedule.of(job.training, tiny_dataset.num("train")), CPU).distribute()
    assert asked == [None, False]
