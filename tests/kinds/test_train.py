"""What a training is refused for before it begins, and what is counted for it."""

from collections.abc import Callable

import pytest

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.errors import DataError
from lwddpm.kinds.train import check_dataset
from lwddpm.training.estimate import estimate_resources


def test_choosing_an_average_takes_validation_slices(tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset) -> None:
    splits = tiny_dataset.manifest.splits
    without = splits | {"validation": splits["validation"].model_copy(update={"num": 0})}
    dataset = Dataset(tiny_dataset.path, tiny_dataset.manifest.model_copy(update={"splits": without}))
    job = tiny_job("training.ema_lengths=[0.1]")
    check_dataset(job, tiny_dataset)
    check_dataset(tiny_job(), dataset)
    with pytest.raises(DataError, match=r"training\.ema_lengths: choosing takes validation slices, got 0; .*splits"):
        check_dataset(job, dataset)


def test_each_average_costs_a_copy_of_the_weights(tiny_job: Callable[..., TrainJob]) -> None:
    wide = ("model.dim=64", "model.dim_mults=[1,2,4]")
    plain, several = (estimate_resources(tiny_job(*wide, *more)) for more in ((), ("training.ema_lengths=[0.1,0.2]",)))
    assert several.memory_mib - plain.memory_mib == pytest.approx(2 * 4 * plain.parameters / 2**20, abs=1)
    assert several.step_tflop == plain.step_tflop


def test_steps_on_crops_are_counted_by_their_share(tiny_job: Callable[..., TrainJob]) -> None:
    wide = ("model.dim=64", "model.dim_mults=[1,2,4]", "data.image_size=64", "model.coordinates=true")
    whole, half, all_ = (
        estimate_resources(tiny_job(*wide, *more)).step_tflop
        for more in ((), ("training.patches={share: 0.5, size: 0.5}",), ("training.patches={share: 1, size: 0.5}",))
    )
    assert all_ == pytest.approx(whole / 4, rel=0.02), "a quarter of the pixels"
    assert half == pytest.approx((whole + all_) / 2, rel=0.01)
