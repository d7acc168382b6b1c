"""When things happen during a run, and the learning rate at each step."""

import math
from dataclasses import dataclass

from lwddpm.config import TrainingConfig
from lwddpm.errors import DataError


def batches_per_epoch(num_images: int, batch_size: int) -> int:
    """Whole batches in a permutation of the training split: what an epoch is, in every place."""
    return num_images // batch_size


@dataclass(frozen=True)
class Schedule:
    """A run measured in optimizer steps; an event at step n happens when n steps are complete.

    Attributes:
        steps_per_epoch: no whole number where a GAN's step takes several batches and an epoch ends within one.
        guide: the snapshot that is kept with the model as its guide; None: there is none, or it would come too late.
    """

    steps_per_epoch: float
    num_steps: int
    checkpoints: frozenset[int]
    snapshots: frozenset[int]
    guide: int | None = None

    @classmethod
    def of(cls, config: TrainingConfig, num_images: int, batches_per_step: int = 1) -> "Schedule":
        """Translate epochs into steps for a training split of `num_images` slices.

        Args:
            batches_per_step: see `TrainingJob.batches_per_step`; an epoch shows each slice once, whatever it is.

        Raises:
            DataError: the split is smaller than what one step takes.
        """
        of_epoch = batches_per_epoch(num_images, config.batch_size)
        if of_epoch < batches_per_step:
            batches = "one batch" if batches_per_step == 1 else f"{batches_per_step} batches (adversarial.n_critic)"
            raise DataError(
                f"training.batch_size: an epoch needs at least {batches}, got {num_images} training slices for a "
                f"batch of {config.batch_size}; lower it or add data"
            )
        per_epoch = of_epoch / batches_per_step
        num_steps = config.max_steps or -(-(config.epochs or 0) * of_epoch // batches_per_step)  # epochs are whole
        every = max(1, round(config.checkpoint_every_epochs * per_epoch))
        guide = None if config.guide_epoch is None else max(1, round(config.guide_epoch * per_epoch))
        if guide is not None and guide >= num_steps:
            guide = None
        snapshots = {round(epoch * per_epoch) for epoch in config.snapshot_epochs} | ({guide} if guide else set())
        return cls(
            steps_per_epoch=per_epoch,
            num_steps=num_steps,
            checkpoints=frozenset([*range(every, num_steps, every), num_steps]),
            snapshots=frozenset([*(max(1, step) for step in snapshots if step < num_steps), num_steps]),
            guide=guide,
        )


def learning_rate(config: TrainingConfig, step: int, num_steps: int) -> float:
    """Rate of step `step` (from 0): linear warm-up, then constant, or half a cosine down to zero."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
