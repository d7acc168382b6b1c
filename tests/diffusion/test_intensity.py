import torch

from lwddpm.diffusion.intensity import from_uint8, to_uint8


def test_every_intensity_survives_the_round_trip():
    levels = torch.arange(256, dtype=torch.uint8)
    x = from_uint8(levels)
    assert torch.equal(to_uint8(x), levels)
    assert (x.min(), x.max()) == (-1, 1)


def test_values_round_to_the_nearest_level_and_clamp():
    x = torch.tensor([-7.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 1.4])
    assert to_uint8(x).tolist() == [0, 0, 1, 255]
