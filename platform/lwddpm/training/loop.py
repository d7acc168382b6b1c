"""The training loop: one process of one or many. Imports neither Ray nor MLflow."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lwddpm.config import SamplingConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.diffusion.sampling import generate
from lwddpm.errors import CheckpointError, JobError
from lwddpm.models.unet import build_model, count_parameters
from lwddpm.training.batches import BatchLoader, training_draw, validation_draw
from lwddpm.training.checkpoint import (
    SavedModel,
    TrainingState,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    save_model,
)
from lwddpm.training.disk import remove_leftovers
from lwddpm.training.ema import ExponentialMovingAverage
from lwddpm.training.precision import choose_precision
from lwddpm.training.reporter import Reporter
from lwddpm.training.schedule import Schedule, learning_rate
from lwddpm.training.window import Window

GRID_SAMPLES = 16  # drawn at every snapshot
GRID_STEPS = 50
# The untrained network predicts about zero; a loss well above that start means it has left for good.
_DIVERGED = 3.0
# DDP's default of 25 MiB holds all gradients of a network that CPUs train: nothing would be sent before the backward
# pass ends. In small buckets the exchange overlaps it (measured: 3 % instead of 9 % of a step).
_CPU_BUCKET_MIB = 2


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
        CheckpointError: the run's checkpoint is of another job or dataset.
        DataError: fewer training slices than one batch.
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
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        config = job.training
        self.schedule = Schedule.of(config, dataset.num("train"))
        self.precision = choose_precision(config, job.model, device, self.schedule.num_steps)
        torch.manual_seed(job.seed)
        self.model = self.precision.place(build_model(job.model).to(device)).train()
        self.ema = ExponentialMovingAverage(self.model, config.ema_decay)
        self.process = DiffusionProcess(job.diffusion).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.lr, fused=device.type in ("cpu", "cuda"))
        self.loader = BatchLoader(dataset.images("train"), device)
        self.initial_loss: float | None = None
        self.step = 0
        self._resume()
        if self.precision.compile:
            self.model.compile()  # in place: the names in checkpoints stay the same
        network: nn.Module = self.model
        if self.world > 1:
            on_gpu = device.type == "cuda"
            network = DistributedDataParallel(
                network,
                device_ids=[device.index] if on_gpu else None,
                gradient_as_bucket_view=True,
                bucket_cap_mb=25 if on_gpu else _CPU_BUCKET_MIB,
            )
        self.network = network

    def _resume(self) -> None:
        if self.rank == 0:
            remove_leftovers(self.run_dir / "checkpoints")
        path = latest_checkpoint(self.run_dir)
        if path is None:
            return
        state = load_checkpoint(path, self.model, self.ema.model, self.optimizer, self.device)
        for name, found, expected in (
            ("job settings", state.training_digest, self.job.training_digest()),
            ("dataset version", state.dataset_version, self.dataset.version),
        ):
            if found != expected:
                raise CheckpointError(
                    f"{path}: a run continues with the {name} it began with, {found}, got {expected}; "
                    "start over with --fresh, or give the job another name"
                )
        self.step, self.initial_loss = state.step, state.initial_loss

    def run(self, until: int | None) -> TrainingOutcome:
        start, first_step = time.perf_counter(), self.step
        config, schedule = self.job.training, self.schedule
        end = schedule.num_steps if until is None else min(until, schedule.num_steps)
        window = Window(config.log_every_steps, self.device, self.world)
        stopping = validated = False
        while self.step < end and not stopping:
            loss, norm = self._optimizer_step()
            self.step += 1
            window.add(loss, norm)
            step = self.step
            at_checkpoint = step in schedule.checkpoints or step == end
            if window.full or at_checkpoint or (self.world == 1 and self.should_stop()):
                stopping = window.agree(self.rank == 0 and self.should_stop())
                self._report(window, first=step - window.count)
            if step in schedule.snapshots:
                self._on_rank_0(self._snapshot)  # before the checkpoint: a run continued from it has this grid already
            if at_checkpoint or stopping:
                self._validate()
                validated = self.step == end
                self._on_rank_0(self._save_checkpoint)
            if window.reported:
                window.reset()  # only now: images/s is the rate of training, without grids and checkpoints
        finished = self.step >= schedule.num_steps
        if self.step == until and not validated:
            self._validate()  # the checkpoint was there, but whoever asked for it died before hearing of it
        if finished:
            self._on_rank_0(lambda: self._save_model(self.run_dir / "model"))
        elif self.step == until:
            self._on_rank_0(lambda: self._save_model(self.run_dir / "paused"))
        seconds = time.perf_counter() - start
        done = (self.step - first_step) * config.batch_size
        return TrainingOutcome(self.step, finished, seconds, done / seconds)

    def _optimizer_step(self) -> tuple[Tensor, Tensor]:
        """One step on this rank's share of the global batch.

        Returns:
            The rank's part of the mean loss (the mean over the ranks is that of the batch), the gradient's norm.
        """
        config = self.job.training
        draw = training_draw(
            self.job.seed,
            self.step,
            config.batch_size,
            len(self.loader.images),
            self.job.diffusion.num_train_timesteps,
            config.horizontal_flip,
        )
        first, last = _part(0, config.batch_size, self.rank, self.world)
        total = torch.zeros((), device=self.device)
        for index in range(config.grad_accumulation_steps):
            begin, end = _part(first, last, index, config.grad_accumulation_steps)
            if isinstance(self.network, DistributedDataParallel):  # one all-reduce a step, not one a chunk
                self.network.require_backward_grad_sync = index == config.grad_accumulation_steps - 1
            x_0, timesteps, noise = self.loader.load(draw.part(begin, end))
            # DDP averages over the ranks. For the gradient of the whole batch each chunk counts by its size, which is
            # not the same on all ranks where an elastic number of workers does not divide the batch.
            parts = config.batch_size / ((end - begin) * self.world)
            loss = self._losses(self.network, x_0, timesteps, noise).mean() / parts
            loss.backward()
            total += loss.detach()
        limit = config.max_grad_norm if config.max_grad_norm is not None else float("inf")
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step, self.schedule.num_steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=self.world == 1)  # DDP's bucket views keep their memory
        self.ema.update(self.model, self.step)
        return total, norm

    def _losses(self, network: nn.Module, x_0: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        x_t = self.precision.place_input(self.process.q_sample(x_0, timesteps, noise))
        with self.precision.autocast():
            prediction = network(x_t, timesteps)
        return self.process.losses(prediction.float(), x_0, timesteps, noise)

    def _report(self, window: Window, first: int) -> None:
        losses, norms, rate = window.read()
        for offset, values in enumerate(zip(losses, norms, strict=True)):
            for name, value in zip(("loss", "gradient's norm"), values, strict=True):
                if not np.isfinite(value):
                    raise JobError(self._divergence(first + offset + 1, f"the {name} is {value}"))
        mean = float(np.mean(losses))
        if self.initial_loss is None:
            self.initial_loss = mean
        elif mean > _DIVERGED * self.initial_loss and self.step > self.job.training.warmup_steps:
            raise JobError(
                self._divergence(self.step, f"the loss rose to {mean:.3g}, from {self.initial_loss:.3g} at the start")
            )
        rows = {first + offset + 1: {"train/loss": loss} for offset, loss in enumerate(losses)}
        rows[self.step] |= {
            "train/grad_norm": norms[-1],
            "train/lr": learning_rate(self.job.training, self.step - 1, self.schedule.num_steps),
            "train/images_per_s": rate * self.job.training.batch_size,
            "train/step_seconds": 1 / rate,
            "train/epoch": self.step / self.schedule.steps_per_epoch,
            "train/peak_memory_mib": _peak_memory_mib(self.device),
        }
        self._on_rank_0(lambda: self.reporter.metrics(rows))

    def _divergence(self, step: int, what: str) -> str:
        config = self.job.training
        remedy = f"lower training.lr (now {config.lr:g})"
        if config.max_grad_norm is None:
            remedy = f"set training.max_grad_norm: 1.0, or {remedy}"
        elif self.precision.bf16:
            remedy += ", or try training.precision: fp32"
        return f"training diverged at step {step}: {what}; {remedy}. The last good checkpoint is kept"

    @torch.no_grad()
    def _validate(self) -> None:
        count = min(self.job.training.validation_samples, self.dataset.num("validation"))
        if count == 0:
            return
        images = self.dataset.images("validation")
        draw = validation_draw(self.job.seed, count, len(images), self.job.diffusion.num_train_timesteps)
        loader = BatchLoader(images, self.device)
        share = max(1, self.job.training.batch_size // self.world)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for begin in range(self.rank * share, count, self.world * share):
            batch = loader.load(draw.part(begin, begin + share))
            total += self._losses(self.ema.model, *batch).double().sum()
        if self.world > 1:
            dist.all_reduce(total)
        self._on_rank_0(lambda: self.reporter.metrics({self.step: {"val/loss": total.item() / count}}))

    def _save_checkpoint(self) -> None:
        start = time.perf_counter()
        state = TrainingState(
            step=self.step,
            training_digest=self.job.training_digest(),
            dataset_version=self.dataset.version,
            initial_loss=self.initial_loss,
        )
        keep = self.job.training.keep_checkpoints
        path = save_checkpoint(self.run_dir, state, self.model, self.ema.model, self.optimizer, keep)
        self.reporter.metrics({self.step: {"train/checkpoint_seconds": time.perf_counter() - start}})
        self.reporter.checkpoint(self.step, path)

    def _snapshot(self) -> None:
        """Draw samples from the EMA weights and, before the last step, keep the weights."""
        epoch = self.step / self.schedule.steps_per_epoch
        # Not the evaluation's sampler: the other ranks wait, and 1000 steps would keep them waiting for minutes.
        steps = min(GRID_STEPS, self.job.diffusion.num_train_timesteps)
        sampling = SamplingConfig(sampler="ddim", num_inference_steps=steps)
        size = self.dataset.manifest.image_size
        images = generate(self.ema.model, self.job.diffusion, sampling, range(GRID_SAMPLES), size, self.device)
        self.reporter.images(self.step, epoch, images.numpy())
        if self.step < self.schedule.num_steps:
            self._save_model(self.run_dir / "snapshots" / f"epoch_{epoch:g}")

    def _save_model(self, path: Path) -> None:
        saved = SavedModel(
            model=self.job.model,
            diffusion=self.job.diffusion,
            image_size=self.dataset.manifest.image_size,
            dataset_version=self.dataset.version,
            dataset_simulated=self.dataset.manifest.simulated,
            training_digest=self.job.training_digest(),
            step=self.step,
            epoch=self.step / self.schedule.steps_per_epoch,
            parameters=count_parameters(self.job.model),
        )
        save_model(path, self.ema.model, saved)

    def _on_rank_0(self, action: Callable[[], None]) -> None:
        """Let rank 0 write something while the others wait; what fails there fails on all, so that none waits for ever.

        Raises:
            JobError: the disk refused, on every rank.
        """
        error: JobError | None = None
        if self.rank == 0:
            try:
                action()
            except JobError as refused:
                error = refused
        if self.world > 1:
            failed = torch.tensor(float(error is not None), device=self.device)
            dist.all_reduce(failed)
            if failed.item() > 0 and error is None:
                error = JobError("rank 0 could not write; its message says why")
        if error is not None:
            raise error


def _part(first: int, last: int, index: int, count: int) -> tuple[int, int]:
    """Bounds of part `index` of `count` nearly equal parts of first..last-1."""
    length = last - first
    return first + index * length // count, first + (index + 1) * length // count


def _peak_memory_mib(device: torch.device) -> float:
    """Most memory that this worker has held: of its GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
