from itertools import pairwise

import numpy as np
import pytest

from lwddpm.config import TrainingConfig
from lwddpm.errors import DataError
from lwddpm.training.batches import training_draw
from lwddpm.training.schedule import Schedule, learning_rate


def test_epochs_become_steps_and_the_last_step_is_always_kept() -> None:
    config = TrainingConfig(epochs=10, batch_size=8, checkpoint_every_epochs=3, snapshot_epochs=(2, 7, 50))
    schedule = Schedule.of(config, num_images=85)
    assert (schedule.steps_per_epoch, schedule.num_steps) == (10, 100)
    assert schedule.checkpoints == {30, 60, 90, 100}
    assert schedule.snapshots == {20, 70, 100}


@pytest.mark.parametrize(("epoch", "guide"), [(None, None), (2.5, 25), (0.01, 1), (9.99, None), (50, None)])
def test_the_guide_is_a_snapshot_from_before_the_end(epoch: float | None, guide: int | None) -> None:
    config = TrainingConfig(max_steps=100, batch_size=8, snapshot_epochs=(2,), guide_epoch=epoch)
    schedule = Schedule.of(config, num_images=85)
    assert schedule.guide == guide
    assert schedule.snapshots == {20, 100} | ({guide} if guide else set())


@pytest.mark.parametrize("batches_per_step", [1, 2, 3, 5])
@pytest.mark.parametrize("num_images", [80, 85, 131, 352])
def test_epochs_show_every_slice_as_often_as_there_are_epochs(num_images: int, batches_per_step: int) -> None:
    """What the schedule calls an epoch is what the batches are drawn by, for GANs too."""
    epochs, batch = 4, 8
    schedule = Schedule.of(TrainingConfig(epochs=epochs, batch_size=batch), num_images, batches_per_step)
    updates = schedule.num_steps * batches_per_step
    seen = np.concatenate([training_draw(0, u, batch, num_images, 1, False).indices for u in range(updates)])
    wanted = epochs * (num_images // batch) * batch
    assert wanted <= len(seen) < wanted + batch * batches_per_step
    for epoch in range(epochs):
        of_epoch = seen[epoch * wanted // epochs : (epoch + 1) * wanted // epochs]
        assert len(set(of_epoch)) == len(of_epoch) > num_images - batch
    assert schedule.num_steps / schedule.steps_per_epoch == pytest.approx(epochs, abs=1 / schedule.steps_per_epoch)


def test_max_steps_cuts_an_epoch_short() -> None:
    schedule = Schedule.of(TrainingConfig(max_steps=15, batch_size=8), num_images=80)
    assert schedule.num_steps == 15
    assert schedule.checkpoints == {10, 15}


def test_parts_of_an_epoch_are_at_least_a_step() -> None:
    config = TrainingConfig(max_steps=3, batch_size=8, checkpoint_every_epochs=0.001, snapshot_epochs=(0.001,))
    schedule = Schedule.of(config, num_images=80)
    assert schedule.checkpoints == {1, 2, 3}
    assert schedule.snapshots == {1, 3}


def test_less_than_a_batch_is_refused() -> None:
    with pytest.raises(DataError, match=r"training.batch_size.*7 training slices.*batch of 8"):
        Schedule.of(TrainingConfig(batch_size=8), num_images=7)


def test_warm_up_rises_to_lr_and_cosine_falls_to_zero() -> None:
    config = TrainingConfig(lr=0.1, lr_schedule="cosine", warmup_steps=10)
    rates = [learning_rate(config, step, 110) for step in range(111)]
    assert rates[:10] == pytest.approx([0.01 * n for n in range(1, 11)])
    assert rates[10] == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0.05)
    assert rates[110] == pytest.approx(0, abs=1e-12)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_constant_stays() -> None:
    assert learning_rate(TrainingConfig(lr=0.1), 5000, 10_000) == 0.1
