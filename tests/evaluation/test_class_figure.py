"""The confusion of classes as a figure: names that can be read, however many and narrow the matrices are."""

from itertools import pairwise

import numpy as np
import pytest

from lwddpm.evaluation.class_figure import draw_matrix
from lwddpm.evaluation.figure_style import new_figure

NAMES = ("glioma tumor", "meningioma tumor", "no tumor", "pituitary tumor")


@pytest.mark.parametrize("panels", [1, 2, 3, 5])
def test_no_name_below_a_matrix_covers_another(panels: int) -> None:
    figure = new_figure(3)
    for axes in np.atleast_1d(figure.subplots(1, panels, sharey=True)):
        draw_matrix(axes, np.eye(4), NAMES)
    figure.canvas.draw()
    for axes in figure.axes:
        places = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(left.x1 <= right.x0 for left, right in pairwise(places))
        labels = [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()]
        assert labels == list(NAMES)
