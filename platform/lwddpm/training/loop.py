"""The training loop: one process of one or many. Imports neither Ray nor MLflow."""

import functools
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.diffusion.prior import Prior
from lwddpm.diffusion.sampling import generate
from lwddpm.errors import CheckpointError, JobError
from lwddpm.evaluation.collapse import diversity
from lwddpm.evaluation.subset import distinct, evenly_spread
from lwddpm.files import remove_leftovers
from lwddpm.models.build import count_parameters
from lwddpm.training.adversarial import AdversarialStep
from lwddpm.training.agreement import together
from lwddpm.training.checkpoint import (
    TrainingState,
    checkpoint_path,
    checkpoints,
    load_checkpoint,
    read_state,
    set_aside,
    snapshot_path,
)
from lwddpm.training.checkpoint_writer import CheckpointWriter
from lwddpm.training.consistency import TEACHER_FOLDER, ConsistencyStep
from lwddpm.training.denoising import DenoisingStep
from lwddpm.training.ema import average_name
from lwddpm.training.fitted_prior import calibrated_for, prior_of
from lwddpm.training.reporter import Reporter
from lwddpm.training.schedule import Schedule
from lwddpm.training.step import TrainingStep
from lwddpm.training.stored_files import DamagedCheckpointError
from lwddpm.training.stored_model import SavedModel, save_model
from lwddpm.training.window import Window
from lwddpm.version import code_version

GRID_SAMPLES = 16  # drawn at every snapshot
# An untrained network predicts about zero. A loss so many times that of the start does not come down again.
_DIVERGED = 3.0


@dataclass(frozen=True)
class TrainingOutcome:
    """What the loop hands back: the same on every rank."""

    step: int
    finished: bool
    seconds: float
    images_per_s: float


def train(
    job: TrainJob,
    dataset: Dataset,
    run_dir: Path,
    reporter: Reporter,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
    until: int | None = None,
) -> TrainingOutcome:
    """Train to the end of the schedule, from the newest checkpoint in `run_dir` where there is one.

    With `until` the training pauses there: validated, with a checkpoint to continue from and its EMA weights in
    `run_dir/paused`. Schedules (learning rate, EMA) are those of the whole training all the same.

    Joins the process group if one is initialised: every rank calls this with the same job.

    Args:
        job: validated job.
        dataset: opened dataset of `job.data`.
        run_dir: receives checkpoints, snapshots and the final model; shared by all ranks.
        reporter: told about progress on rank 0.
        device: where this rank computes.
        should_stop: asked on rank 0; once true, the loop saves a checkpoint and returns unfinished.
        until: optimizer step to pause at; at most the schedule's length counts.

    Raises:
        JobError: the loss is not finite or diverges (names the step and the likely setting), or the disk refuses.
        CheckpointError: the run's checkpoint is of another job or dataset, or none is whole. Of several the newest
            whole one is taken; damaged ones are kept aside and reported.
        DataError: fewer training slices than one batch, or the dataset cannot be read. All errors come to all ranks.
    """
    return _Trainer(job, dataset, run_dir, reporter, device, should_stop).run(until)


class _Trainer:
    def __init__(
        self,
        job: TrainJob,
        dataset: Dataset,
        run_dir: Path,
        reporter: Reporter,
        device: torch.device,
        should_stop: Callable[[], bool],
    ) -> None:
        self.job, self.dataset, self.run_dir = job, dataset, run_dir
        self.reporter, self.device, self.should_stop = reporter, device, should_stop
        self.initial_loss: float | None = None
        self.step, self.chosen = 0, False
        together(self._build, device)
        self._on_rank_0(self._resume)
        self._follow()
        self.training.distribute()

    def _build(self) -> None:
        job, dataset = self.job, self.dataset
        self.schedule = Schedule.of(job.training, dataset.num("train"), job.batches_per_step)
        if job.training.validation_samples:
            dataset.images("validation")  # where it is damaged, all ranks hear of it here
        self.training = _step_type(job)(job, dataset, self.schedule, self.device)
        if isinstance(self.training, ConsistencyStep):
            self.training.begin_from(self.run_dir / TEACHER_FOLDER)
        self.rank, self.world = self.training.rank, self.training.world

    def _resume(self) -> None:
        """Continue from the newest whole checkpoint, if there are any, and keep damaged newer ones aside.

        Rank 0 alone decides which is whole: the ranks must not begin at different steps.
        """
        remove_leftovers(self.run_dir / "checkpoints")
        damaged: list[tuple[Path, str]] = []
        for path in checkpoints(self.run_dir):
            try:
                self._load(path)
                break
            except DamagedCheckpointError as error:
                damaged.append((path, str(error)))
        if damaged and self.step == 0:
            reasons = "; ".join(reason for _, reason in damaged)
            raise CheckpointError(
                f"{damaged[0][0].parent}: no whole checkpoint is left ({reasons}); restore one from a backup, or start "
                "over with --fresh"
            )
        if damaged:
            kept = [f"{reason}; kept as {set_aside(path).name}" for path, reason in damaged]
            self.reporter.warning(
                self.step, f"damaged checkpoint: {'; '.join(kept)}; the training goes on from step {self.step}"
            )

    def _follow(self) -> None:
        """Continue from the checkpoint that rank 0 has taken."""
        if self.world == 1:
            return
        step = torch.tensor(self.step, device=self.device)
        dist.broadcast(step, src=0)
        path = checkpoint_path(self.run_dir, int(step.item())) if self.rank > 0 and step > 0 else None
        together(lambda: self._load(path) if path is not None else None, self.device)

    def _load(self, path: Path) -> None:
        state = read_state(path)
        digests, version = (self.job.training_digest(), self.job.earlier_training_digest()), self.dataset.version
        for name, before, now in (
            ("job settings", state.training_digest, digests),
            ("dataset version", state.dataset_version, (version,)),
        ):
            if before not in now:
                raise CheckpointError(
                    f"{path}: a run continues with the {name} it began with, {before}, got {now[0]}; "
                    "start over with --fresh, or give the job another name"
                )
        load_checkpoint(path, self.training.modules, self.training.optimizers, self.device)
        self.step, self.initial_loss = state.step, state.initial_loss

    def run(self, until: int | None) -> TrainingOutcome:
        with CheckpointWriter(self.run_dir, self.job.training.keep_checkpoints) as self.writer:
            return self._run(until)

    def _run(self, until: int | None) -> TrainingOutcome:
        start, first_step = time.perf_counter(), self.step
        config, schedule = self.job.training, self.schedule
        end = schedule.num_steps if until is None else min(until, schedule.num_steps)
        window = Window(self.training.values, config.log_every_steps, self.device, self.world)
        stopping = validated = False
        while self.step < end and not stopping:
            window.add(self.training.take(self.step))
            self.step += 1
            step = self.step
            at_checkpoint = step in schedule.checkpoints or step == end
            if window.full or at_checkpoint or (self.world == 1 and self.should_stop()):
                stopping = window.agree(self.rank == 0 and self.should_stop())
                self._report(window, first=step - window.count)
            if step == end:
                self._choose()
            if step in schedule.snapshots:
                self._on_rank_0(self._snapshot)  # before the checkpoint: a run continued from it has this grid already
            if at_checkpoint or stopping:
                self._validate()
                validated = self.step == end
                self._on_rank_0(self._save_checkpoint)
            if window.reported:
                window.reset()  # only now: images/s is the rate of training, without grids and checkpoints
        self._on_rank_0(lambda: self._tell_of_checkpoint(wait=True))
        finished = self.step >= schedule.num_steps
        if finished or self.step == until:
            self._choose()
        if self.step == until and not validated:
            self._validate()  # the checkpoint was there, but whoever asked for it died before hearing of it
        if finished:
            self._on_rank_0(self._save_averages)
        elif self.step == until:
            self._on_rank_0(lambda: self._save_average(self.run_dir / "paused", self.training.kept_length))
        seconds = time.perf_counter() - start
        done = (self.step - first_step) * self._images_per_step
        return TrainingOutcome(self.step, finished, seconds, done / seconds)

    @property
    def _images_per_step(self) -> int:
        return self.job.training.batch_size * self.job.batches_per_step

    def _report(self, window: Window, first: int) -> None:
        values, rate = window.read()
        for offset in range(window.count):
            for name, of_steps in values.items():
                if not np.isfinite(of_steps[offset]):
                    raise JobError(self._divergence(first + offset + 1, f"the {_words(name)} is {of_steps[offset]}"))
        mean = float(np.mean(values["train/loss"]))
        if self.initial_loss is None:
            self.initial_loss = mean
        elif (
            self.training.loss_falls
            and mean > _DIVERGED * self.initial_loss
            and self.step > self.job.training.warmup_steps
        ):
            raise JobError(
                self._divergence(self.step, f"the loss rose to {mean:.3g}, from {self.initial_loss:.3g} at the start")
            )
        losses = {name: of_steps for name, of_steps in values.items() if name.startswith("train/loss")}
        rows = {
            first + offset + 1: {name: of_steps[offset] for name, of_steps in losses.items()}
            for offset in range(window.count)
        }
        rows[self.step] |= {name: of_steps[-1] for name, of_steps in values.items()}
        rows[self.step] |= {
            "train/lr": self.training.learning_rate(self.step - 1),
            "train/images_per_s": rate * self._images_per_step,
            "train/step_seconds": 1 / rate,
            "train/epoch": self.step / self.schedule.steps_per_epoch,
            "train/peak_memory_mib": _peak_memory_mib(self.device),
        }
        self._on_rank_0(lambda: self._tell(rows))

    def _tell(self, rows: dict[int, dict[str, float]]) -> None:
        self.reporter.metrics(rows)
        self._tell_of_checkpoint(wait=False)

    def _divergence(self, step: int, reason: str) -> str:
        config = self.job.training
        remedy = f"lower training.lr (now {config.lr:g})"
        if config.max_grad_norm is None:
            remedy = f"set training.max_grad_norm: 1.0, or {remedy}"
        elif self.training.precision.bf16:
            remedy += ", or try training.precision: fp32"
        return f"training diverged at step {step}: {reason}; {remedy}. The last good checkpoint is kept"

    def _choose(self) -> None:
        """Settle which average of the weights is kept, once."""
        if self.chosen:
            return
        self.chosen, values = True, self.training.choose()
        if values:
            self._on_rank_0(lambda: self.reporter.metrics({self.step: values}))

    def _validate(self) -> None:
        values = self.training.validate()
        if values:
            self._on_rank_0(lambda: self.reporter.metrics({self.step: values}))

    def _save_checkpoint(self) -> None:
        start = time.perf_counter()
        self._tell_of_checkpoint(wait=True)
        state = TrainingState(
            code_version=code_version(),
            step=self.step,
            training_digest=self.job.training_digest(),
            dataset_version=self.dataset.version,
            initial_loss=self.initial_loss,
        )
        self.writer.save(state, self.training.modules, self.training.optimizers)
        self.reporter.metrics({self.step: {"train/checkpoint_seconds": time.perf_counter() - start}})

    def _tell_of_checkpoint(self, wait: bool) -> None:
        """Report the checkpoint that has been written since the last one, if there is one; what failed fails here."""
        written = self.writer.finished(wait=wait)
        if written is not None:
            self.reporter.checkpoint(*written)

    def _snapshot(self) -> None:
        """Draw samples from the EMA weights and, before the last step, keep the weights."""
        epoch, last = self.step / self.schedule.steps_per_epoch, self.step == self.schedule.num_steps
        average = self.training.kept if last else self.training.ema  # the same whether it pauses here or not
        grid, size, indices = self.training.grid, self.dataset.manifest.image_size, range(GRID_SAMPLES)
        network, prior = self.training.drawing_network(average), self._calibrated_prior(average.model)
        images = generate(network, self.job.diffusion, grid, indices, size, self.device, prior=prior)
        self.reporter.images(self.step, epoch, images.numpy())
        value = diversity(images.numpy(), self._real_slices)
        if value is not None:
            self.reporter.metrics({self.step: {"train/diversity": value}})
        if not last:
            self._save_model(snapshot_path(self.run_dir, epoch), average.model, prior)

    @functools.cached_property
    def _real_slices(self) -> np.ndarray:
        """As many different training slices as a snapshot draws, or all that there are, from all over the split."""
        images, num = self.dataset.images("train"), GRID_SAMPLES
        different = distinct(evenly_spread(images, num))
        while len(different) < GRID_SAMPLES and num < len(images):  # some are copies: black ones, for instance
            num *= 2
            different = distinct(evenly_spread(images, num))
        return evenly_spread(different, GRID_SAMPLES)

    @functools.cached_property
    def _prior(self) -> Prior | None:
        """Of the training split; None for GANs, and for too few slices."""
        diffusion, vocabulary = self.job.diffusion, self.training.vocabulary
        prior = prior_of(self.dataset, diffusion, vocabulary) if diffusion is not None else None
        return prior.to(self.device) if prior is not None else None

    def _calibrated_prior(self, network: nn.Module) -> Prior | None:
        """The prior, with what can be said of a network as it is now; a teacher's as it is."""
        if self.training.prior is not None:
            return self.training.prior
        if self._prior is None or self.job.diffusion is None:
            return None
        return calibrated_for(self._prior, network, self.job.diffusion, self.dataset)

    def _save_averages(self) -> None:
        """The kept one as the run's model, after the others, for whoever would rather measure what they draw."""
        for length in self.training.averages.keys() - {self.training.kept_length}:
            self._save_average(self.run_dir / "averages" / average_name(length), length)
        self._save_average(self.run_dir / "model", self.training.kept_length)

    def _save_average(self, path: Path, length: float | None) -> None:
        network = self.training.averages[length].model
        self._save_model(path, network, self._calibrated_prior(network), length)

    def _save_model(self, path: Path, network: nn.Module, prior: Prior | None, length: float | None = None) -> None:
        saved = SavedModel(
            code_version=code_version(),
            model=self.job.model,
            diffusion=self.job.diffusion,
            image_size=self.dataset.manifest.image_size,
            dataset_version=self.dataset.version,
            dataset_simulated=self.dataset.manifest.simulated,
            training_digest=self.job.training_digest(),
            step=self.step,
            epoch=self.step / self.schedule.steps_per_epoch,
            parameters=count_parameters(self.job.model, self.dataset.manifest.image_size, self.training.vocabulary),
            ema_length=length,
            conditions=self.training.vocabulary,
        )
        save_model(path, network, saved, prior, self._guide())

    def _guide(self) -> Path | None:
        """The snapshot that later models of this training keep as their guide, once it has been taken."""
        at = self.schedule.guide
        path = snapshot_path(self.run_dir, at / self.schedule.steps_per_epoch) if at and at < self.step else None
        return path if path is not None and path.exists() else None

    def _on_rank_0(self, action: Callable[[], None]) -> None:
        """Let rank 0 do something while the others wait; what fails there fails on all, so that none waits for ever.

        Raises:
            LwddpmError: of rank 0, on every rank.
        """
        together(action if self.rank == 0 else lambda: None, self.device)


def _step_type(job: TrainJob) -> type[TrainingStep]:
    if job.adversarial is not None:
        return AdversarialStep
    return DenoisingStep if job.consistency is None else ConsistencyStep


def _words(metric: str) -> str:
    """A metric's name as one says it: train/grad_norm is the gradient's norm."""
    return metric.removeprefix("train/").replace("grad_norm", "gradient's norm").replace("_", " of the ")


def _peak_memory_mib(device: torch.device) -> float:
    """Most memory that this worker has held: of its GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
