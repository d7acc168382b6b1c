"""The training slice that a slice is most likely a copy of, by masked normalised correlation.

A slice is compared with every training slice under flips, rotations of up to 6 degrees and shifts of up to 4 pixels.
Correlation does not see changes of brightness and contrast; both slices are blurred alike before, so that noise and
blur hardly lower it. A coarse search over all training slices is followed by an exact one among the nearest. The best
of these is compared in further ways: blurred once more, for copies that were blurred, and only where the slice is
neither black nor white, for copies that were clipped.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

REACH_PX = 4  # the largest shift
FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (1, 2))  # axes of [N, H, W]: left-right, up-down, both
ANGLES = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # degrees
_COARSE_ANGLES = (-4.0, 0.0, 4.0)
_HALF_CELLS = 32  # of the coarse search a side: it averages over 2 x 2, at every place
_BLUR_PX = 1.5  # sigma at 64 x 64, in proportion at other sizes, but not below _LEAST_BLUR_PX
_LEAST_BLUR_PX = 1.0
_FURTHER_BLUR_PX = 1.25  # sigma at 64 x 64, in proportion: the training slice is compared with it and without
_BOTH_FLIPS = 3  # coarsely nearest rows that are looked at in the second best flip, too: heads are nearly symmetric
_CLIPPED = 0.05  # share of clipped pixels around a place from which on it is not compared
_LEAST_UNCLIPPED = 0.5  # of the foreground; where less is left, all of it is compared
_FOREGROUND = 0.15  # of the bright pixels
_LEAST_DEVIATION = 1e-3  # of what is compared, intensity in [0, 1]: less is no picture


class Match(NamedTuple):
    """Of each of N slices, the training slice that it correlates most with, and how it was moved for that.

    Attributes:
        score: correlation in [-1, 1], float32 [N].
        row: of the training slice, int64 [N].
        flip: index into `FLIPS`, int64 [N].
        angle: degrees, float32 [N].
        shift: rows and columns in pixels, int64 [N, 2].
    """

    score: np.ndarray
    row: np.ndarray
    flip: np.ndarray
    angle: np.ndarray
    shift: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["Match"]) -> "Match":
        """Of chunks, one after the other."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def or_better(self, other: "Match") -> "Match":
        """Of each slice the one with the higher score."""
        better = other.score > self.score
        return Match(
            *(
                np.where(better.reshape(-1, *[1] * (own.ndim - 1)), others, own)
                for own, others in zip(self, other, strict=True)
            )
        )


class CorrelationSearch:
    """Training slices, ready to be searched.

    Args:
        train: uint8 [T, S, S], S from 16.
        candidates: how many of the coarsely nearest training slices are looked at exactly.
    """

    def __init__(self, train: np.ndarray, candidates: int = 6) -> None:
        images = _smooth(_floats(train))
        self.size, self.candidates = images.shape[1], min(candidates, len(images))
        self._reach = -(-REACH_PX * _HALF_CELLS // self.size)
        fine, cells = _half_cells(images), _HALF_CELLS - 2 * self._reach
        places = [(i, j) for i in range(2 * self._reach + 1) for j in range(2 * self._reach + 1)]
        # [places, T, pixels]: every placing of a template inside the training slices
        self._windows = torch.stack([_unit_cells(fine[:, i : i + cells, j : j + cells]) for i, j in places])
        self._spectrum, self._squares = torch.fft.rfft2(images), torch.fft.rfft2(images**2)

    @torch.inference_mode()
    def __call__(self, slices: np.ndarray, among: np.ndarray | None = None, but_for: np.ndarray | None = None) -> Match:
        """Search for each slice of a chunk; what it takes of memory and time grows with the chunk alone.

        Args:
            slices: uint8 [N, S, S].
            among: further rows to look at exactly, int64 [N, K], such as those whose features are near.
            but_for: a row for each slice, int64 [N], that is not looked at, such as its own.
        """
        images = _floats(slices)
        heads = foreground(images)
        masks, images = (heads, heads * unclipped(images)), _smooth(images)
        scores = self._search(images)
        if but_for is not None:
            scores[:, torch.arange(len(images)), torch.from_numpy(but_for)] = -2.0
        rows, flips = self._candidates(scores, among)
        found = self._exact(images, heads, rows, flips, self._spectrum[rows.flatten()], self._squares[rows.flatten()])
        row, flip = torch.from_numpy(found.row)[:, None], torch.from_numpy(found.flip)[:, None]
        same = self._image(row.flatten())
        for mask in masks:
            for picture in (same, blurred(same, _FURTHER_BLUR_PX * self.size / 64)):
                again = self._exact(images, mask, row, flip, torch.fft.rfft2(picture), torch.fft.rfft2(picture**2))
                found = found.or_better(again)
        return found

    def _candidates(self, scores: Tensor, among: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """The pairs to look at exactly, given coarse correlations [flips, N, T]: rows and flips, int64 [N, K] each."""
        rows = scores.amax(0).topk(self.candidates, dim=1).indices
        if among is not None:
            rows = torch.cat([rows, torch.from_numpy(among)], dim=1)
        best, second = scores.gather(2, rows.expand(len(FLIPS), -1, -1)).topk(2, dim=0).indices
        both = slice(min(_BOTH_FLIPS, self.candidates))
        return torch.cat([rows, rows[:, both]], dim=1), torch.cat([best, second[:, both]], dim=1)

    def _search(self, images: Tensor) -> Tensor:
        """The best coarse correlation with each training slice in each flip, [flips, N, T]."""
        inner = slice(self._reach, _HALF_CELLS - self._reach)
        best = torch.full((len(FLIPS), len(images), self._windows.shape[1]), -2.0)
        turned = [rotated(images, angle) for angle in _COARSE_ANGLES]
        for score, axes in zip(best, FLIPS, strict=True):
            templates = [_unit_cells(_half_cells(image.flip(axes))[:, inner, inner]) for image in turned]
            for window in self._windows:
                for template in templates:
                    torch.maximum(score, template @ window.T, out=score)
        return best

    def _image(self, rows: Tensor) -> Tensor:
        """Training slices as they are compared, float [N, S, S]."""
        return torch.fft.irfft2(self._spectrum[rows], s=(self.size, self.size))

    def _exact(
        self, images: Tensor, masks: Tensor, rows: Tensor, flips: Tensor, spectrum: Tensor, squares: Tensor
    ) -> Match:
        """The best of the pairs of N slices and K rows each, in a flip each, at every angle and shift.

        Args:
            rows, flips: int64 [N, K].
            spectrum, squares: of the training slices of all pairs, and of their squares, [N K, S, S / 2 + 1].
        """
        n, k = rows.shape
        best, place = torch.full((n, k), -2.0), torch.zeros(n, k, dtype=torch.int64)
        angles = torch.zeros(n, k)
        chosen = (flips * n + torch.arange(n)[:, None]).flatten()  # row of [flips x N]
        for angle in ANGLES:
            image, mask = rotated(images, angle), rotated(masks, angle)
            parts = [_template(image.flip(axes), mask.flip(axes)) for axes in FLIPS]
            template, weight = (torch.cat(part)[chosen] for part in zip(*parts, strict=True))
            score, at = self._at_shifts(template, weight, spectrum, squares).flatten(1).max(1)
            better = score.view(n, k) > best
            best = torch.where(better, score.view(n, k), best)
            place = torch.where(better, at.view(n, k), place)
            angles.masked_fill_(better, angle)
        winner = best.argmax(1, keepdim=True)
        score, row, flip, turned, at = (values.gather(1, winner)[:, 0] for values in (best, rows, flips, angles, place))
        width = 2 * REACH_PX + 1
        shift = torch.stack([at // width - REACH_PX, at % width - REACH_PX], 1)
        return Match(score.numpy(), row.numpy(), flip.numpy(), turned.numpy(), shift.numpy())

    def _at_shifts(self, template: Tensor, weight: Tensor, spectrum: Tensor, squares: Tensor) -> Tensor:
        """The weighted correlation of P templates with their training slices at every shift, [P, 9, 9]."""

        def everywhere(left: Tensor, right: Tensor) -> Tensor:
            sums = torch.fft.irfft2(left.conj() * right, s=(self.size, self.size))
            return sums.roll((REACH_PX, REACH_PX), (1, 2))[:, : 2 * REACH_PX + 1, : 2 * REACH_PX + 1]

        total = weight[:, :1, :1].real.clamp(min=1)  # a spectrum at zero is the sum
        sums = everywhere(weight, spectrum)
        deviation = (everywhere(weight, squares) / total - (sums / total) ** 2).clamp(min=0).sqrt()
        return everywhere(template, spectrum) / (deviation.clamp(min=_LEAST_DEVIATION) * total.sqrt())


def rotated(images: Tensor, degrees: float) -> Tensor:
    """Slices float [N, S, S] turned about their centres, bilinearly; from outside the border is repeated."""
    if degrees == 0:
        return images
    grid = _grid(degrees, images.shape[1]).expand(len(images), -1, -1, -1)
    return F.grid_sample(images[:, None], grid, align_corners=False, padding_mode="border")[:, 0]


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Slices float [N, S, S] under a Gaussian of so many pixels; at the border they are mirrored."""
    radius = min(int(3 * sigma) + 1, images.shape[1] - 1)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = F.pad(images[:, None], (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None])[:, 0]


def foreground(images: Tensor) -> Tensor:
    """1 where a slice shows the head, 0 on the background, float [N, S, S]; 1 everywhere where nothing stands out."""
    smooth = F.avg_pool2d(images[:, None], 5, 1, 2, count_include_pad=False)[:, 0]
    bright = smooth.flatten(1).quantile(0.95, dim=1)[:, None, None]
    mask = (smooth > _FOREGROUND * bright).float()
    return torch.where(mask.mean((1, 2), keepdim=True) < 0.05, torch.ones_like(mask), mask)


def unclipped(images: Tensor) -> Tensor:
    """1 where a slice, float [N, S, S], and its surroundings are neither black nor white; all 1 where that leaves too
    little of the head."""
    clipped = ((images <= 0.5 / 255) | (images >= 254.5 / 255)).float()
    clear, head = (_smooth(clipped) < _CLIPPED).float(), foreground(images)
    left = (clear * head).sum((1, 2), keepdim=True)
    return torch.where(left >= _LEAST_UNCLIPPED * head.sum((1, 2), keepdim=True), clear, torch.ones_like(clear))


@functools.lru_cache(maxsize=64)
def _grid(degrees: float, size: int) -> Tensor:
    angle = torch.deg2rad(torch.tensor(degrees))
    turn = torch.stack([angle.cos(), -angle.sin(), angle * 0, angle.sin(), angle.cos(), angle * 0]).view(1, 2, 3)
    return F.affine_grid(turn, [1, 1, size, size], align_corners=False)


def _floats(slices: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(slices)).float() / 255


def _smooth(images: Tensor) -> Tensor:
    return blurred(images, max(_LEAST_BLUR_PX, _BLUR_PX * images.shape[1] / 64))


def _half_cells(images: Tensor) -> Tensor:
    return F.interpolate(images[:, None], (_HALF_CELLS, _HALF_CELLS), mode="area")[:, 0]


def _unit_cells(half_cells: Tensor) -> Tensor:
    """Cells of 2 x 2, centred and of unit norm: rows whose products are correlations."""
    rows = F.avg_pool2d(half_cells[:, None], 2).flatten(1)
    centred = rows - rows.mean(1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True).clamp(min=_LEAST_DEVIATION * rows.shape[1] ** 0.5)


def _template(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Spectra of slices, weighted by their masks, centred and of unit norm, and of the weights.

    Nothing within the longest shift of the border has a weight, so that shifts do not meet the other edge.
    """
    inner = slice(REACH_PX, masks.shape[1] - REACH_PX)
    weight = torch.zeros_like(masks)
    weight[:, inner, inner] = masks[:, inner, inner]
    total = weight.sum((1, 2), keepdim=True).clamp(min=1)
    centred = images - (weight * images).sum((1, 2), keepdim=True) / total
    deviation = ((weight * centred**2).sum((1, 2), keepdim=True) / total).sqrt().clamp(min=_LEAST_DEVIATION)
    return torch.fft.rfft2(weight * centred / (deviation * total.sqrt())), torch.fft.rfft2(weight)
