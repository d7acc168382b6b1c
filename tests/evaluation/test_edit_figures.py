"""Figures of edits show what they are given, once each."""

import numpy as np

from lwddpm.evaluation.edit_figures import inpainting_figure, variations_figure, way_figure

RANDOM = np.random.default_rng(0)


def _images(num: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (num, 6, 6), dtype=np.uint8)


def _shown(figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


def test_the_outline_lies_on_the_edge_of_the_region() -> None:
    mask = np.zeros((6, 6), bool)
    mask[1:3, 2:5] = True
    mask[2, 4] = False  # an L has as many edges as its box
    source, images = _images(1)[0], _images(4)
    figure = inpainting_figure(source, mask, images)
    edges = [line.get_xydata() for line in figure.axes[1].lines]
    assert len(edges) == 2 * (2 + 3)
    for (x0, y0), (x1, y1) in edges:
        assert abs(x1 - x0) + abs(y1 - y0) == 1
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        sides = [(y, x - 0.5), (y, x + 0.5)] if x0 == x1 else [(y - 0.5, x), (y + 0.5, x)]
        assert sum(mask[round(row), round(column)] for row, column in sides) == 1
    shown = _shown(figure)
    assert (shown[0] == source).all()
    np.testing.assert_allclose(shown[2], images.std(0))
    assert all((image == wanted).all() for image, wanted in zip(shown[3:], images, strict=True))


def test_a_row_for_each_strength_rising() -> None:
    source, weak, strong = _images(1)[0], _images(3), _images(3)
    shown = _shown(variations_figure(source, {0.8: strong, 0.2: weak}))
    expected = [source, *weak, source, *strong]
    assert all((image == wanted).all() for image, wanted in zip(shown, expected, strict=True))


def test_a_long_way_is_thinned_and_keeps_its_ends() -> None:
    frames = _images(101)
    figure = way_figure(frames, (3, 5))
    shown = _shown(figure)
    assert len(shown) == 32
    assert (shown[0] == frames[0]).all()
    assert (shown[-1] == frames[-1]).all()
    assert figure.axes[31].get_title() == "1.00"
