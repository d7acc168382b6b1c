import numpy as np
import pytest
from pydantic import ValidationError

from lwddpm.config import DataConfig
from lwddpm.data.intensity import Samples, to_grey, value_range
from lwddpm.data.sources import UnusableFile

SLICE = np.random.default_rng(0).normal(1000, 100, (64, 64))


def grey(values, intensity="percentiles"):
    samples = Samples(np.asarray(values, dtype=float))
    return np.asarray(to_grey(samples, *value_range(samples, intensity)), dtype=int)


@pytest.mark.parametrize("outlier", [1e9, -1e9])
def test_a_hot_voxel_changes_no_other(outlier):
    hot = SLICE.copy()
    hot[3, 3] = outlier
    others = np.ones(SLICE.shape, bool)
    others[3, 3] = False
    assert np.abs(grey(hot) - grey(SLICE))[others].max() <= 1
    assert np.ptp(grey(hot, "full")[others]) == 0  # what the extremes make of it


def test_percentiles_clip_half_a_percent_at_either_end():
    low, high = np.sort(SLICE.ravel())[[21, 4074]]  # of 4096
    np.testing.assert_array_equal(grey(SLICE), grey(SLICE, (low, high)))
    assert (grey(SLICE) == 255).mean() == pytest.approx(0.005, abs=0.003)


def test_a_few_bright_pixels_on_black_are_not_lost():
    dots = np.zeros((64, 64))
    dots[10, 10:14] = 100, 200, 300, 400
    np.testing.assert_array_equal(grey(dots), grey(dots, "full"))
    assert grey(dots)[10, 13] == 255


def test_a_window_is_the_same_for_all_slices():
    np.testing.assert_array_equal(grey([[-50, 0, 40, 80, 200]], (0, 80)), [[0, 0, 128, 255, 255]])
    assert not grey(np.full((8, 8), 1000.0)).any()
    for window in ([80, 80], [80, 0]):
        with pytest.raises(ValidationError, match="low must be below high"):
            DataConfig(source="x", intensity=window)


def test_values_that_are_not_finite_are_refused():
    for value in (np.nan, np.inf):
        with pytest.raises(UnusableFile, match="not finite"):
            grey([[0, value]])
