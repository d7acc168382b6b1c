import numpy as np
import pytest

from lwddpm.evaluation.collapse import collapse_warning, diversity
from lwddpm.evaluation.similarity import ssim_pairs


def slices(seed: int, num: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(num, size, size), dtype=np.uint8)


def test_slices_of_one_distribution_are_as_diverse_as_each_other() -> None:
    assert diversity(slices(0, 60), slices(1, 60)) == pytest.approx(1, abs=0.1)
    assert collapse_warning(diversity(slices(0, 60), slices(1, 60))) is None


def test_a_few_images_over_and_over_are_found_where_random_pairs_differ() -> None:
    few = slices(0, 5)[np.arange(60) % 5]
    grain = np.random.default_rng(2).integers(2, size=few.shape, dtype=np.uint8)
    collapsed = few // 2 + grain
    value = diversity(collapsed, slices(1, 60))
    assert value < 0.1
    assert "mode collapse" in str(collapse_warning(value))
    pairs = ssim_pairs(collapsed, num_pairs=300, seed=0)
    assert (pairs < 0.5).double().mean() > 0.7  # which is why they do not tell


def test_it_is_the_ratio_of_distances() -> None:
    """Slices on a line: nearest neighbours 4 grey levels apart against 2."""
    line = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((20, 8, 8), np.uint8)
    assert diversity(4 * line, 2 * line) == pytest.approx(2)
    assert diversity(line[:10], 2 * line) == pytest.approx(0.5)  # cut to one size


def test_the_slices_compared_are_from_all_over_a_split() -> None:
    """Rows are ordered by source: here the first thousand are neighbouring slices of one class, nearly alike."""
    near = (slices(2, 1) // 2 + slices(3, 1000) // 64).astype(np.uint8)
    real = np.concatenate([near, slices(4, 3000)])
    value = diversity(slices(5, 4000), real)
    assert value == pytest.approx(1, abs=0.1)


def test_a_majority_of_copies_among_real_slices_hides_no_collapse() -> None:
    """60 of 100 real slices are black: their median distance is 0, and anything divided by it infinite."""
    real = np.concatenate([np.zeros((60, 16, 16), np.uint8), slices(1, 40)])
    value = diversity(np.repeat(slices(0, 1), 16, axis=0), real)
    assert value == 0
    assert "mode collapse" in str(collapse_warning(value))
    assert diversity(slices(2, 16), real) == pytest.approx(1, abs=0.1)


def test_small_distances_between_bright_slices_are_not_rounded_away() -> None:
    bright = np.full((3, 128, 128), 250, np.uint8)
    bright[1, 0, 0], bright[2, 0, 0] = 251, 252
    assert diversity(bright, bright) == pytest.approx(1)
    assert diversity(np.repeat(bright[:1], 3, axis=0), bright) == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_said_is_not_said() -> None:
    copies = np.repeat(slices(0, 1), 6, axis=0)
    assert diversity(slices(0, 6), copies) is None
    assert collapse_warning(diversity(copies, copies)) is None  # the real slices are no better
    with pytest.raises(ValueError, match="2 or more"):
        diversity(slices(0, 1), slices(1, 9))
