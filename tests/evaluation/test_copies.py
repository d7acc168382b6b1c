import numpy as np
import pytest

from lwddpm.evaluation.copies import nearest_median


def test_it_is_the_median_distance_to_the_nearest_of_all() -> None:
    images, train = (np.random.default_rng(n).integers(0, 256, (n, 8, 8), dtype=np.uint8) for n in (7, 9))
    apart = images[:, None].astype(float) - train[None]
    wanted = np.median(np.sqrt((apart**2).mean((2, 3))).min(1))
    assert nearest_median(images, train) == pytest.approx(wanted, rel=1e-5)


def test_copies_are_at_no_distance() -> None:
    train = np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8)
    assert nearest_median(train[:5], train) == pytest.approx(0, abs=0.05)
