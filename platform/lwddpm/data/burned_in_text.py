"""Text in a slice: names, dates and settings that scanners and viewers write into the corners of pictures.

A detector without weights, of prepared slices: what cannot be read there does not get past preparation. It looks near
the borders for thin strokes (what a morphological opening takes away), for small connected components of them, and for
rows of at least three of one height on even ground. It misses single letters, letters over the head, dark ones on
bright ground, handwriting, and text that is not horizontal. docs/data.md has how often it is right.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

FEWEST = 3  # letters in a row
LEAST_HEIGHT, MOST_HEIGHT = 4, 48  # pixels of a letter: smaller ones cannot be read
MOST_WIDTH = 2.2  # heights: two letters may touch
FILLED = 0.12  # share of its box that a letter fills at least
STROKE = 11  # pixels: strokes are thinner
CONTRASTS = (40, 110)  # grey levels of a stroke above the ground; at the higher ones letters that touch come apart
EVEN, EVEN_SHARE = 12, 0.8  # the ground around letters varies by no more grey levels, in this share of its pixels
INSIDE = 0.25  # of each side: what lies further inside than this is not looked at


class TextLine(NamedTuple):
    """A row of letters, in pixels of the slice."""

    left: int
    top: int
    right: int
    bottom: int
    letters: int


def find_text(image: np.ndarray) -> list[TextLine]:
    """Rows of bright letters near the borders of a slice, uint8 [S, S]; one may be found at several contrasts."""
    if min(image.shape) < STROKE:
        return []
    rise = image - _opening(image)
    rows, columns = (round(side * INSIDE) for side in image.shape)
    rise[rows : image.shape[0] - rows, columns : image.shape[1] - columns] = 0
    return [line for contrast in CONTRASTS for line in _lines(image, rise > contrast)]


def _opening(image: np.ndarray) -> np.ndarray:
    """Morphological opening with a square of STROKE pixels, by doubling: ten times as fast as SciPy's."""
    inside = np.pad(image, STROKE - 1, mode="edge")
    for axis in (0, 1):
        inside = _running(np.minimum, inside, axis)
    for axis in (0, 1):
        inside = _running(np.maximum, inside, axis)
    return inside


def _running(function: Callable[..., Any], values: np.ndarray, axis: int) -> np.ndarray:
    """Minimum or maximum over STROKE values along an axis, which gets STROKE - 1 shorter."""
    length, values = 1, np.moveaxis(values, axis, 0)
    while length < STROKE:
        step = min(length, STROKE - length)
        values = function(values[:-step], values[step:])
        length += step
    return np.moveaxis(values, 0, axis)


def _lines(image: np.ndarray, strokes: np.ndarray) -> list[TextLine]:
    if np.count_nonzero(strokes) < FEWEST * LEAST_HEIGHT:
        return []
    labels, num = ndimage.label(strokes, np.ones((3, 3), bool))
    areas = np.bincount(labels.ravel(), minlength=num + 1)
    letters = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        like_a_letter = LEAST_HEIGHT <= height <= MOST_HEIGHT and width <= MOST_WIDTH * height
        share = areas[number] / (height * width)
        if like_a_letter and share >= FILLED and (share <= 0.85 or width <= height / 2):
            letters.append(TextLine(columns.start, rows.start, columns.stop, rows.stop, 1))
    return [line for line in _rows(letters) if _on_even_ground(image, strokes, line)]


def _rows(letters: list[TextLine]) -> list[TextLine]:
    """Letters of like heights side by side, at least FEWEST."""
    rows: list[TextLine] = []
    left = sorted(letters)
    while left:
        members, others = [left[0]], list[TextLine]()
        for letter in left[1:]:
            last = members[-1]
            height, other = last.bottom - last.top, letter.bottom - letter.top
            overlap = min(last.bottom, letter.bottom) - max(last.top, letter.top)
            near = -1 <= letter.left - last.right <= 1.5 * height
            alike = 0.6 * height <= other <= height / 0.6
            (members if near and alike and overlap >= 0.6 * min(height, other) else others).append(letter)
        left = others
        if len(members) >= FEWEST:
            edges = np.array(members)
            left_most, top = edges[:, :2].min(axis=0).tolist()
            right, bottom = edges[:, 2:4].max(axis=0).tolist()
            rows.append(TextLine(left_most, top, right, bottom, len(members)))
    return rows


def _on_even_ground(image: np.ndarray, strokes: np.ndarray, line: TextLine) -> bool:
    window = (slice(max(0, line.top - 2), line.bottom + 2), slice(max(0, line.left - 2), line.right + 2))
    ground = image[window][~ndimage.binary_dilation(strokes[window], iterations=2)].astype(np.int16)
    if not len(ground):
        return True
    return float((np.abs(ground - np.median(ground)) <= EVEN).mean()) >= EVEN_SHARE
