import numpy as np
import pytest

from lwddpm.evaluation.intensities import Band, out_of_band_warning


def slices(n, seed, brightness=100.0, contrast=20.0):
    generator = np.random.default_rng(seed)
    level = generator.normal(brightness, 10, (n, 1, 1))
    return (level + generator.normal(0, contrast, (n, 16, 16))).clip(0, 255).astype(np.uint8)


def test_of_slices_like_the_real_ones_a_few_percent_lie_outside():
    outside = Band.of(slices(4000, 0)).outside(slices(4000, 1))
    assert 0.02 < outside.share < 0.06
    assert out_of_band_warning(outside.share, 0.03, 0.04, outside.parts) is None


@pytest.mark.parametrize(
    ("changed", "side"),
    [
        ({"brightness": 150.0}, "too bright"),
        ({"brightness": 50.0}, "too dark"),
        ({"contrast": 5.0}, "too little contrast"),
        ({"contrast": 40.0}, "too much contrast"),
    ],
)
def test_each_side_is_told(changed, side):
    outside = Band.of(slices(500, 0)).outside(slices(200, 1, **changed))
    assert outside.share > 0.9
    assert max(outside.parts, key=outside.parts.get) == side
    warning = out_of_band_warning(outside.share, 0.9, 0.04, outside.parts)
    assert warning is not None
    assert side in warning


def test_one_picture_has_a_band_that_it_lies_in():
    images = np.zeros((10, 4, 4), np.uint8)
    assert Band.of(images).outside(images).share == 0
