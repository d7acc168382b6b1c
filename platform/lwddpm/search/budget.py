"""How far a trial trains, and where on the way it is measured and may be ended."""

from dataclasses import dataclass

from lwddpm.config import SearchJob
from lwddpm.errors import ConfigError
from lwddpm.training.schedule import Schedule


@dataclass(frozen=True)
class Budget:
    """Optimizer steps at which a trial is measured, ascending; the last is the full budget of a trial."""

    rungs: tuple[int, ...]

    @property
    def grace_steps(self) -> int:
        return self.rungs[0]

    @property
    def max_steps(self) -> int:
        return self.rungs[-1]

    @classmethod
    def of(cls, job: SearchJob, num_images: int) -> "Budget":
        """Rungs of the job's scheduler, for a training split of `num_images` slices.

        ASHA's rungs grow by `reduction_factor`; the median rule's are equidistant; without early stopping there is
        one, at the end.

        Raises:
            ConfigError: a trial would train longer than the training it stands for, or end before it began.
            DataError: the split is smaller than one batch.
        """
        search, whole = job.search, Schedule.of(job.training, num_images, job.batches_per_step).num_steps
        end = search.max_steps or whole
        if end > whole:
            raise ConfigError(
                f"search.max_steps: must be at most the {whole} steps of the whole training, got {end}; "
                "lower it, or raise training.max_steps (or training.epochs)"
            )
        first = search.grace_steps or -(-end // search.reduction_factor**2)  # rounded up: no rung just before the end
        if first > end:
            raise ConfigError(
                f"search.grace_steps: must be at most search.max_steps = {end}, got {first}; lower it or raise that"
            )
        if search.scheduler == "none":
            return cls((end,))
        rungs, step = [], first
        while step < end:
            rungs.append(step)
            step = step * search.reduction_factor if search.scheduler == "asha" else step + first
        return cls((*rungs, end))
