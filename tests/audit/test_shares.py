import numpy as np
import pytest
from scipy.stats import beta, hypergeom

from lwddpm.audit.shares import by_class, exceeds, growth, mixed, reproduced, share_of


@pytest.mark.parametrize(("count", "n"), [(0, 100), (3, 653), (50, 50), (13, 1000)])
def test_intervals_are_those_of_clopper_and_pearson(count: int, n: int) -> None:
    """Against the closed form with quantiles of the beta distribution."""
    share = share_of(count, n)
    assert share.low == pytest.approx(beta.ppf(0.025, count, n - count + 1) if count else 0, abs=1e-9)
    assert share.high == pytest.approx(beta.ppf(0.975, count + 1, n - count) if count < n else 1, abs=1e-9)


def test_a_share_of_nothing_says_nothing() -> None:
    assert (share_of(0, 0).low, share_of(0, 0).high) == (0, 1)


def test_the_test_of_two_shares_sums_the_tables_that_are_as_extreme() -> None:
    p = exceeds(share_of(10, 100), share_of(2, 200))
    assert p == pytest.approx(hypergeom.sf(9, 300, 12, 100))
    assert exceeds(share_of(0, 100), share_of(2, 200)) == pytest.approx(1)


def test_what_is_reproduced_counts_once() -> None:
    flags, matches = np.array([True, True, False, True]), np.array([0, 0, 1, 2])
    assert reproduced(flags, matches, [0, 1, 2, 3]).value == 0.5
    subjects = reproduced(flags, matches, ["a", "b", "a", "c"])
    assert (subjects.count, subjects.n) == (1, 3)


def test_growth_ends_with_all_and_never_falls() -> None:
    draw = np.random.default_rng(0)
    flags, matches = draw.random(500) < 0.2, draw.integers(0, 30, 500)
    points = growth(flags, matches)
    assert points[-1] == (500, flags.sum(), len(np.unique(matches[flags])))
    for column in zip(*points, strict=True):
        assert list(column) == sorted(column)


def test_classes_are_those_of_the_training_slices() -> None:
    shares = by_class(np.array([True, False, True]), np.array([1, 1, 0]), np.array([0, 1, 1]), ("one", "two", "none"))
    assert {name: (share.count, share.n) for name, share in shares.items()} == {
        "one": (1, 1),
        "two": (1, 2),
        "none": (0, 0),
    }


def test_a_mixture_holds_as_many_planted_copies_as_it_says() -> None:
    share = mixed(np.zeros(200, bool), np.array([True, False]), 0.2)
    assert (share.count, share.n) == (20, 200)
    assert mixed(np.ones(10, bool), np.array([False]), 0.01).count == 9
