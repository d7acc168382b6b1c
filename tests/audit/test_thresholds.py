"""Thresholds hold the rate of false alarms that they promise, counted by groups, and copies among the held-out slices
do not raise them out of reach."""

import math

import numpy as np
import pytest

from lwddpm.audit.thresholds import calibrate, check_groups, fewest_groups
from lwddpm.errors import DataError


def _scores(num: int, seed: int) -> np.ndarray:
    """1 - exp(-x) with x exponential around 2: as correlations of slices that are no copies."""
    return 1 - np.exp(-(2 + np.random.default_rng(seed).exponential(0.4, num)))


@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_new_slices_raise_no_more_false_alarms_than_promised(rate: float) -> None:
    of_new = []
    for seed in range(20):
        scores = {"correlation": _scores(600, seed), "features": _scores(600, 1000 + seed)}
        thresholds = calibrate(scores, np.arange(600), rate, seed)
        new = {"correlation": _scores(20_000, 2000 + seed), "features": _scores(20_000, 3000 + seed)}
        of_new.append(thresholds.flags(new).mean())
    assert rate / 20 < np.mean(of_new) < rate
    assert np.quantile(of_new, 0.9) < rate


def test_the_reported_rate_is_that_of_groups_that_took_no_part() -> None:
    told, real = [], []
    for seed in range(20):
        thresholds = calibrate({"correlation": _scores(600, seed)}, np.arange(600), 0.05, seed)
        told.append(thresholds.false_alarms.value)
        real.append(thresholds.flags({"correlation": _scores(20_000, 500 + seed)}).mean())
    assert np.mean(told) >= np.mean(real) * 0.8
    assert all(share >= 0 for share in told)


def test_a_group_counts_once_however_many_slices_it_has() -> None:
    scores = _scores(300, 0)
    once = calibrate({"correlation": scores}, np.arange(300), 0.05)
    fivefold = calibrate({"correlation": np.repeat(scores, 5)}, np.repeat(np.arange(300), 5), 0.05)
    assert fivefold.values == once.values
    assert fivefold.false_alarms == once.false_alarms
    assert fivefold.alarmed.sum() == 5 * once.alarmed.sum()


def test_copies_among_the_held_out_slices_do_not_hide_those_of_a_generator() -> None:
    scores = _scores(600, 0)
    clean = calibrate({"correlation": scores}, np.arange(600), 0.01)
    scores[:4] = 0.99999
    mixed = calibrate({"correlation": scores}, np.arange(600), 0.01)
    assert mixed.values["correlation"] == pytest.approx(clean.values["correlation"], abs=0.01)
    assert mixed.alarmed[:4].all()


def test_the_fewest_groups_certify_the_rate_and_one_fewer_does_not() -> None:
    for rate in (0.01, 0.05, 0.1):
        needed = fewest_groups(rate)
        assert (1 - rate) ** needed <= 0.05 < (1 - rate) ** (needed - 1)
    assert fewest_groups(0.01) == 299
    check_groups(299, 0.01, "data")
    with pytest.raises(DataError, match=r"takes 299 or more held-out groups .* got 298") as refused:
        check_groups(298, 0.01, "data")
    offered = float(str(refused.value).rsplit(" to ", 1)[1].split()[0])
    check_groups(298, offered, "data")  # the remedy works
    assert math.isclose(offered, 0.011)
