"""Augmentation against SciPy, and what the network is told of it."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from safetensors.torch import load_file

from lwddpm.config import ModelConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.models.build import build_model
from lwddpm.training.augmentation import CHANGES, augmentation_draw, augmented
from lwddpm.training.checkpoint import latest_checkpoint
from lwddpm.training.loop import train
from lwddpm.training.reporter import RecordingReporter

CPU = torch.device("cpu")
SIZE = 24


def slices(num: int = 1) -> torch.Tensor:
    """Smooth ones with a bright edge, float64 [num, 1, SIZE, SIZE]."""
    noise = np.random.default_rng(0).normal(size=(num, 1, SIZE, SIZE))
    x = torch.tensor(scipy.ndimage.gaussian_filter(noise, (0, 0, 1, 1)) * 1.5).clamp(-1, 1)
    x[..., 0] = 0.9
    return x


def change(**changes: float) -> torch.Tensor:
    """Of one slice, given as what happens to it: a shift of 0.25 of the side, a rotation of 30 degrees."""
    return torch.tensor([[changes.get(name, 0) / spread for name, spread in CHANGES.items()]], dtype=torch.float64)


def test_without_changes_the_slice_is_what_it_was() -> None:
    x = torch.rand(5, 1, SIZE, SIZE) * 2 - 1
    assert torch.equal(augmented(x, torch.zeros(5, len(CHANGES))), x)
    changes = torch.zeros(5, len(CHANGES))
    changes[2] = 1
    changed = augmented(x, changes)
    others = [0, 1, 3, 4]
    assert torch.equal(changed[others], x[others]), "one slice's changes are its own"
    assert not torch.equal(changed[2], x[2])


@pytest.mark.parametrize(
    ("shift_x", "shift_y", "log_scale", "degrees"),
    [(0.125, 0, 0, 0), (0, -0.25, 0, 0), (0.03, 0.07, 0, 0), (0, 0, 0.5, 0), (0, 0, 0, 30), (0.1, -0.05, -0.4, -75)],
)
def test_moves_are_those_of_scipy(shift_x: float, shift_y: float, log_scale: float, degrees: float) -> None:
    x, angle, factor = slices(), math.radians(degrees), 2**log_scale
    changes = change(shift_x=shift_x, shift_y=shift_y, scale=log_scale, rotation=angle)
    # SciPy asks for the way from a pixel (row, column) of the result back to one of the slice
    back = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / factor
    middle, shift = np.full(2, (SIZE - 1) / 2), SIZE * np.array([shift_y, shift_x])
    expected = scipy.ndimage.affine_transform(
        x[0, 0].numpy(), back, middle - back @ (middle + shift), order=1, mode="grid-constant", cval=-1
    )
    np.testing.assert_allclose(augmented(x, changes)[0, 0], expected, atol=1e-9)


def test_a_shift_of_whole_pixels_moves_the_rows_to_the_right_and_down() -> None:
    moved = augmented(slices(), change(shift_x=2 / SIZE, shift_y=3 / SIZE))
    torch.testing.assert_close(moved[..., 3:, 2:], slices()[..., :-3, :-2])
    for outside in (moved[..., :3, :], moved[..., :2]):
        torch.testing.assert_close(outside, -torch.ones_like(outside))


def test_a_quarter_turn_and_a_mirror_image_are_those_of_numpy() -> None:
    x = slices()
    turned = augmented(x, change(rotation=math.pi / 2))
    np.testing.assert_allclose(turned[0, 0], np.rot90(x[0, 0], -1), atol=1e-12)
    mirrored = augmented(x, change(mirrored=1))
    assert np.array_equal(mirrored[0, 0].numpy(), np.fliplr(x[0, 0]))


def test_brightness_leaves_black_black_and_white_white() -> None:
    x = torch.tensor([-1, -0.5, 0, 0.9, 1], dtype=torch.float64).reshape(1, 1, 1, 5)
    brighter, darker = (augmented(x, change(brightness=change_)) for change_ in (0.5, -1))
    np.testing.assert_allclose(brighter.flatten(), ((x.flatten() + 1) * 2**0.5 - 1).clamp(max=1))
    np.testing.assert_allclose(darker.flatten(), (x.flatten() + 1) / 2 - 1)


def test_each_change_happens_with_its_probability_and_spread() -> None:
    changes = np.concatenate([augmentation_draw(0, step, 64, 0.3) for step in range(200)])
    happened = changes != 0
    np.testing.assert_allclose(happened.mean(0), 0.3, atol=4 * (0.3 * 0.7 / len(changes)) ** 0.5)
    assert set(changes[:, 0]) == {0, 1}
    for values in changes[:, 1:].T:
        assert values[values != 0].std() == pytest.approx(1, abs=0.05)
    pairs = np.corrcoef(happened.T) - np.eye(len(CHANGES))
    assert np.abs(pairs).max() < 0.04, "one change says nothing of another"
    assert not augmentation_draw(0, 0, 64, 0).any()


def test_changes_depend_on_seed_and_step_alone() -> None:
    draw = augmentation_draw(1, 2, 8, 0.5)
    assert np.array_equal(draw, augmentation_draw(1, 2, 8, 0.5))
    assert not np.array_equal(draw, augmentation_draw(1, 3, 8, 0.5))
    assert not np.array_equal(draw, augmentation_draw(2, 2, 8, 0.5))


def test_a_network_told_of_no_change_is_the_network_that_is_told_nothing() -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(dim=8, dim_mults=(1, 2))).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, timesteps, layer = torch.randn(2, 1, 16, 16), torch.tensor([3, 700]), torch.nn.Linear(6, 8, bias=False)
    assert torch.equal(model(x, timesteps, layer(torch.zeros(2, 6))), model(x, timesteps))
    told = model(x, timesteps, layer(torch.tensor([[0.0] * 6, [1.0] * 6])))
    assert torch.equal(told[0], model(x, timesteps)[0])
    assert not torch.allclose(told[1], model(x, timesteps)[1], atol=1e-3)


def test_the_layer_that_tells_is_trained_and_no_part_of_the_model(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, tmp_path: Path
) -> None:
    plain, changed = RecordingReporter(), RecordingReporter()
    train(tiny_job(), tiny_dataset, tmp_path / "plain", plain, CPU)
    train(tiny_job("training.augment=0.5"), tiny_dataset, tmp_path / "changed", changed, CPU)
    checkpoint = latest_checkpoint(tmp_path / "changed")
    assert checkpoint is not None
    layer = load_file(checkpoint / "augmentation.safetensors")["weight"]
    assert layer.shape == (8, len(CHANGES))
    assert (layer.abs().amax(0) > 0).all(), "of each change"
    models = [load_file(tmp_path / run / "model" / "model.safetensors") for run in ("plain", "changed")]
    assert models[0].keys() == models[1].keys()
    assert any(not torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert changed.values[1]["train/loss"] != plain.values[1]["train/loss"]
