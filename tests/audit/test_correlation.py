"""A slice is found again after what a copy may have gone through, and the search agrees with a plain one."""

import numpy as np
import pytest
import torch

from lwddpm.audit.canaries import KINDS, planted
from lwddpm.audit.correlation import FLIPS, REACH_PX, CorrelationSearch, blurred, foreground, unclipped

SIZE = 32


def _heads(num: int, seed: int, size: int = SIZE) -> np.ndarray:
    """Smooth random pictures inside an ellipse, black outside: uint8 [N, size, size]."""
    draw = np.random.default_rng(seed)
    texture = blurred(torch.from_numpy(draw.normal(size=(num, size, size))).float(), 1.5)
    texture = texture / texture.std((1, 2), keepdim=True) * 35 + 110
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    inside = torch.from_numpy((x / 0.7) ** 2 + (y / 0.8) ** 2 < 1)
    return (texture * inside).clamp(0, 255).to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def train() -> np.ndarray:
    return _heads(40, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_planted_copies_of_every_kind_are_traced_to_their_slice(train: np.ndarray, kind: str) -> None:
    rows = np.arange(0, 40, 4)
    match = CorrelationSearch(train, 4)(planted(train[rows], kind, 1))
    others = CorrelationSearch(train, 4)(_heads(10, 1))
    assert (match.row == rows).mean() >= (0.8 if kind == "combined" else 1)
    assert np.median(match.score) > others.score.max()


def test_a_moved_slice_is_found_where_it_was_moved_to(train: np.ndarray) -> None:
    moved = np.roll(train[:3], (-2, 3), (1, 2))[:, :, ::-1]
    match = CorrelationSearch(train)(moved)
    assert match.row.tolist() == [0, 1, 2]
    assert [FLIPS[flip] for flip in match.flip] == [(2,)] * 3
    assert match.shift.tolist() == [[2, -3]] * 3  # back, after it was mirrored back
    assert match.angle.tolist() == [0, 0, 0]
    assert match.score == pytest.approx(1, abs=1e-3)


def test_the_score_is_the_masked_correlation_at_the_best_shift(train: np.ndarray) -> None:
    """Against NumPy's own correlation of the pixels under the mask, at every shift in turn."""
    query = np.roll(planted(train[5:6], "noisy", 0), (1, -3), (1, 2))
    match = CorrelationSearch(train)(query)
    smooth = blurred(torch.from_numpy(query).float() / 255, 1.0)[0].numpy()
    pixels = torch.from_numpy(query).float() / 255
    head = foreground(pixels)
    masks = [part[0].numpy().astype(bool) for part in (head, head * unclipped(pixels))]
    flip, row = FLIPS[int(match.flip[0])], int(match.row[0])
    assert (row, flip, match.angle[0]) == (5, (), 0)
    axes = tuple(axis - 1 for axis in flip)
    smooth, masks = np.flip(smooth, axes), [np.flip(mask, axes) for mask in masks]
    of_train = blurred(torch.from_numpy(train[row : row + 1]).float() / 255, 1.0)
    both = [of_train[0].numpy(), blurred(of_train, 0.625)[0].numpy()]
    masks = [np.pad(mask[REACH_PX:-REACH_PX, REACH_PX:-REACH_PX], REACH_PX) for mask in masks]
    best = max(
        np.corrcoef(smooth[mask], np.roll(one, (-down, -right), (0, 1))[mask])[0, 1]
        for mask in masks
        for one in both
        for down in range(-REACH_PX, REACH_PX + 1)
        for right in range(-REACH_PX, REACH_PX + 1)
    )
    assert match.score[0] == pytest.approx(best, abs=1e-3)


def test_a_clipped_copy_is_compared_where_it_was_not_clipped(train: np.ndarray) -> None:
    brighter = (train[:10].astype(float) * 1.3 + 60).clip(0, 255).astype(np.uint8)
    assert (brighter == 255)[:, 8:24, 8:24].mean() > 0.05
    match = CorrelationSearch(train, 4)(brighter)
    assert match.row.tolist() == list(range(10))
    assert match.score.min() > 0.999
    nothing = torch.ones(1, SIZE, SIZE)
    assert unclipped(nothing).all(), "what is clipped everywhere is compared as it is"


def test_a_copy_that_was_blurred_is_compared_with_its_slice_blurred(train: np.ndarray) -> None:
    softer = blurred(torch.from_numpy(train[:10]).float(), 0.625).round().to(torch.uint8).numpy()
    match = CorrelationSearch(train, 4)(softer)
    assert match.row.tolist() == list(range(10))
    assert match.score.min() > 0.9995


def test_a_nearly_symmetric_head_is_not_taken_for_its_mirror_image() -> None:
    """The coarse search has cells of two pixels here: after a shift by one it prefers the mirror image of one head."""
    heads = _heads(20, 2, 64).astype(float)
    symmetric = (0.6 * heads + 0.4 * heads[:, :, ::-1]).round().astype(np.uint8)
    match = CorrelationSearch(symmetric)(np.roll(symmetric, (1, -1), (1, 2)))
    assert match.row.tolist() == list(range(20))
    assert match.flip.tolist() == [0] * 20
    assert match.score.min() > 0.999


def test_chunks_do_not_change_a_score(train: np.ndarray) -> None:
    search, slices = CorrelationSearch(train), _heads(6, 3)
    whole = search(slices)
    parts = type(whole).joined([search(slices[:2]), search(slices[2:])])
    for one, two in zip(whole, parts, strict=True):
        assert one == pytest.approx(two, abs=1e-5)


def test_black_slices_are_no_copies(train: np.ndarray) -> None:
    score = CorrelationSearch(np.concatenate([train, np.zeros_like(train[:1])]))(np.zeros_like(train[:2])).score
    assert np.isfinite(score).all()
    assert (np.abs(score) < 0.5).all()


def test_rows_that_are_given_are_looked_at_too(train: np.ndarray) -> None:
    search = CorrelationSearch(train, 1)
    query = _heads(1, 5)
    best = max(float(search(query, np.array([[row]])).score[0]) for row in range(len(train)))
    assert float(search(query).score[0]) <= best
