import pytest
import torch

from lwddpm.diffusion.intensity import from_uint8, to_uint8


@pytest.mark.parametrize("gamma", [0.25, 0.5, 0.8, 1, 1.3, 2])
def test_every_intensity_survives_the_round_trip(gamma):
    levels = torch.arange(256, dtype=torch.uint8)
    x = from_uint8(levels, gamma)
    assert x.dtype == torch.float32
    assert torch.equal(to_uint8(x, gamma), levels)
    assert (x.min(), x.max()) == (-1, 1)


def test_values_round_to_the_nearest_level_and_clamp():
    x = torch.tensor([-7.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 1.4])
    assert to_uint8(x).tolist() == [0, 0, 1, 255]
    assert to_uint8(torch.tensor([-7.0, 0.0, 1.4]), 0.5).tolist() == [0, 64, 255]  # 255 / 4 is 63.75


def test_a_gamma_below_one_spreads_the_dark_end():
    dark = torch.tensor([0, 10], dtype=torch.uint8)
    spread = {gamma: from_uint8(dark, gamma).diff().item() for gamma in (0.5, 1, 2)}
    assert spread[0.5] == pytest.approx(2 * (10 / 255) ** 0.5)
    assert spread[0.5] > spread[1] > spread[2]
