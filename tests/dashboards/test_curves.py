import math
import shutil
from pathlib import Path

import pytest
from mlflow.entities import Metric

from lwddpm.tracking.store import connect
from lwddpm_board.curves import curve_names, read_curves, thin


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


@pytest.mark.parametrize("value", [0.001, math.nan, math.inf])
def test_a_curve_that_stays_where_it_was_goes_on(value: float, empty_store: Path, tmp_path: Path) -> None:
    """As a learning rate after its warm-up: its latest value says nothing about how much there is of it."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    run_id = client.create_run("0").info.run_id
    for last in (2, 4, 6):
        client.log_batch(run_id, metrics=[Metric("train/lr", value, 0, step) for step in (last - 1, last)])
        run = client.get_run(run_id)
        assert [step for step, _ in read_curves(client, run, curve_names(run))["train/lr"]] == list(range(1, last + 1))
