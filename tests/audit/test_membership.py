import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from lwddpm.audit.membership import attack, auc_of, calibrated, tpr_of


def test_both_figures_are_those_of_the_roc_curve() -> None:
    draw = np.random.default_rng(0)
    member, other = draw.normal(1, 1, 300), draw.normal(0, 1, 400)
    truth, scores = np.repeat([1, 0], [300, 400]), np.concatenate([member, other])
    assert auc_of(member, other) == pytest.approx(roc_auc_score(truth, scores))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert tpr_of(member, other) == pytest.approx(true[false <= 0.01].max())
    ties = np.array([1.0, 1.0, 2.0])
    assert auc_of(ties, ties) == 0.5


def test_intervals_hold_the_truth_and_groups_make_them_wider() -> None:
    draw = np.random.default_rng(1)
    member, other = draw.normal(0, 1, 300), draw.normal(0, 1, 300)
    single = attack(member, other, np.arange(300), np.arange(300))
    assert single.auc_interval[0] < 0.5 < single.auc_interval[1]
    assert single.tpr_interval[0] <= single.tpr <= single.tpr_interval[1]
    fivefold = attack(np.repeat(member[:60], 5), np.repeat(other[:60], 5), np.arange(300) // 5, np.arange(300) // 5)
    assert np.diff(fivefold.auc_interval) > 1.5 * np.diff(single.auc_interval)


def test_calibration_takes_difficulty_away() -> None:
    """Losses that differ by difficulty a hundred times as much as by membership; features tell the difficulty."""
    draw = np.random.default_rng(2)
    difficulty = draw.uniform(-2, 2, 400)
    member = np.arange(400) < 200
    losses = np.exp(difficulty - 0.1 * member + draw.normal(0, 0.05, 400))[:, None]
    features = torch.from_numpy(difficulty)[:, None]
    raw, fair = -np.log(losses[:, 0]), calibrated(losses, features)
    assert auc_of(raw[member], raw[~member]) < 0.6
    assert auc_of(fair[member], fair[~member]) > 0.8
