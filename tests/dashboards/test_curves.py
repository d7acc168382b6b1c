import math

import pytest

from lwddpm_board.curves import thin


def test_few_points_stay_as_they_are_and_what_is_no_number_is_none() -> None:
    assert thin([(1, 0.5), (2, math.nan), (9, math.inf)]) == [(1, 0.5), (2, None), (9, None)]


@pytest.mark.parametrize("num", [501, 1000, 20_250])
def test_many_become_means_that_keep_the_area_and_the_last_step(num: int) -> None:
    points = [(step, float(step % 97)) for step in range(1, num + 1)]
    found = thin(points)
    assert len(found) <= 500
    assert found[-1][0] == num
    widths = [step - before for (step, _), (before, _) in zip(found, [(0, 0.0), *found], strict=False)]
    area = sum(width * (value or 0) for width, (_, value) in zip(widths, found, strict=True))
    assert area == pytest.approx(sum(value for _, value in points))
