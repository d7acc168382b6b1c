"""The seam between the loop and what is learnt: networks, optimizers, and what one step does to them.

The loop knows when things happen; a `TrainingStep` knows what happens. There are two: `denoising` and `adversarial`.
"""

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lwddpm.config import SamplingConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.diffusion.intensity import gamma_of
from lwddpm.diffusion.prior import Prior
from lwddpm.models.build import build_model
from lwddpm.models.precision import DrawingNetwork, choose_precision
from lwddpm.training.batches import BatchLoader, Draw
from lwddpm.training.ema import ExponentialMovingAverage
from lwddpm.training.schedule import Schedule, learning_rate
from lwddpm.training.vocabulary import BalancedOrder, classes_of, told_of, vocabulary_of, with_dropout

# DDP's default of 25 MiB holds all gradients of a network that CPUs train: nothing would be sent before the backward
# pass ends. In small buckets the exchange overlaps it (measured: 3 % instead of 9 % of a step).
_CPU_BUCKET_MIB = 2
# Buffers are the same on all ranks as they are. Since torch 2.13 the option has another name, and the former one warns.
_LEAVE_BUFFERS_ALONE: dict[str, Any] = {
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}


class TrainingStep(ABC):
    """One process's part in the training of a network.

    Attributes:
        model: the network that is trained.
        ema: its average, as `training.ema_decay` says.
        averages: all of them, by relative length: `ema` is None's, further ones those of `training.ema_lengths`.
        kept_length: of the average that is sampled, evaluated and registered; None until `choose` takes another.
        vocabulary: of the network's conditions; None: it has none.
        modules, optimizers: what a checkpoint holds, by the name of the file.
        grid: how a snapshot's samples are drawn.
        prior: that the model is saved with; None: one is fitted.
    """

    values: ClassVar[tuple[str, ...]]  # metrics of every step: losses first, each reported for every step
    loss_falls: ClassVar[bool]  # whether the loss falls when all goes well, so that a rise is a divergence
    grid: SamplingConfig
    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    kept_length: float | None = None
    prior: Prior | None = None

    def __init__(self, job: TrainJob, dataset: Dataset, schedule: Schedule, device: torch.device) -> None:
        self.job, self.dataset, self.schedule, self.device = job, dataset, schedule, device
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.precision = choose_precision(job.training, job.model, device, schedule.num_steps)
        torch.manual_seed(job.seed)
        self.vocabulary = vocabulary_of(dataset, job.model.conditions, job.training.condition_dropout or 0)
        self.told_of_train: np.ndarray | None = None
        self.order: BalancedOrder | None = None
        if self.vocabulary is not None:
            self.told_of_train = told_of(dataset, "train", self.vocabulary)
            if job.training.sampling == "balanced":
                self.order = BalancedOrder(self.told_of_train[:, classes_of(self.vocabulary)])
        network = build_model(job.model, dataset.manifest.image_size, self.vocabulary)
        self.model = self.precision.place(network.to(device)).train()
        self.ema = ExponentialMovingAverage(self.model, job.training.ema_decay)
        self.averages: dict[float | None, ExponentialMovingAverage] = {None: self.ema}
        self.loader = BatchLoader(dataset.images("train"), device, gamma_of(job.diffusion))

    @property
    def kept(self) -> ExponentialMovingAverage:
        """What is sampled, evaluated and registered."""
        return self.averages[self.kept_length]

    def drawing_network(self, average: ExponentialMovingAverage) -> nn.Module:
        """An average, as samplers call it: a diffusion network in the number format of the training."""
        return average.model if self.job.diffusion is None else DrawingNetwork(average.model, self.precision)

    def rows_of(self, draw: Draw, step: int) -> Draw:
        """The draw of a step, with the slices of classes that are balanced where the job asks for that."""
        if self.order is None:
            return draw
        indices = self.order.batch(self.job.seed, step, self.job.training.batch_size)
        return dataclasses.replace(draw, indices=indices)

    def told_of_batch(self, rows: np.ndarray, step: int) -> np.ndarray | None:
        """What a conditional network is told of training slices, float32 [B, C]; None of an unconditional one."""
        if self.told_of_train is None:
            return None
        dropout = self.job.training.condition_dropout or 0
        return with_dropout(self.told_of_train[rows], self.job.seed, step, dropout)

    @abstractmethod
    def distribute(self) -> None:
        """Compile, and share gradients with the other ranks; called once, after a checkpoint has been loaded."""

    @abstractmethod
    def take(self, step: int) -> dict[str, Tensor]:
        """Step number `step`, from 0, on this rank's share of the global batch; returns `values` of this rank."""

    def choose(self) -> dict[str, float]:
        """Settle at the end of the training which average is kept; what it was judged by. Every rank calls it."""
        return {}

    def validate(self) -> dict[str, float]:
        """Metrics of the kept weights on held-out slices, if there are such; every rank calls it."""
        return {}

    def shared(self, network: nn.Module) -> nn.Module:
        """The network, with its gradients averaged over the ranks."""
        if self.world == 1:
            return network
        for parameter in network.parameters():
            # In the layout of the weight, as DDP's buckets. A gradient that the first backward pass makes may have
            # another one (that of a penalty has), and would be copied.
            parameter.grad = torch.zeros_like(parameter)
        on_gpu = self.device.type == "cuda"
        return DistributedDataParallel(
            network,
            device_ids=[self.device.index] if on_gpu else None,
            gradient_as_bucket_view=True,
            bucket_cap_mb=25 if on_gpu else _CPU_BUCKET_MIB,
            **_LEAVE_BUFFERS_ALONE,
        )

    def descend(
        self,
        network: nn.Module,
        loss: Callable[[int, int], Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        lr: float,
    ) -> tuple[Tensor, Tensor]:
        """One optimizer step on this rank's share of the global batch.

        Returns:
            The rank's part of the mean loss (the mean over the ranks is that of the batch), the gradient's norm.

        Args:
            network: as `shared` returned it.
            loss: mean loss over the part of the global batch from one index up to another.
            optimizers: of the network's parameters, each of which is one's.
            lr: learning rate of this step.
        """
        config = self.job.training
        first, last = _part(0, config.batch_size, self.rank, self.world)
        total = torch.zeros((), device=self.device)
        for index in range(config.grad_accumulation_steps):
            begin, end = _part(first, last, index, config.grad_accumulation_steps)
            if isinstance(network, DistributedDataParallel):  # one all-reduce a step, not one a chunk
                network.require_backward_grad_sync = index == config.grad_accumulation_steps - 1
            # DDP averages over the ranks. For the gradient of the whole batch each chunk counts by its size, which is
            # not the same on all ranks where an elastic number of workers does not divide the batch.
            part = loss(begin, end) / (config.batch_size / ((end - begin) * self.world))
            part.backward()
            total += part.detach()
        limit = config.max_grad_norm if config.max_grad_norm is not None else float("inf")
        norm = nn.utils.clip_grad_norm_([p for optimizer in optimizers for p in _parameters(optimizer)], limit)
        for optimizer in optimizers:
            self.advance(optimizer, lr)
        return total, norm

    def advance(self, optimizer: torch.optim.Optimizer, lr: float) -> None:
        """Move the parameters by the gradients that they have, and clear these."""
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=self.world == 1)  # DDP's bucket views keep their memory

    def learning_rate(self, step: int) -> float:
        return learning_rate(self.job.training, step, self.schedule.num_steps)


def _part(first: int, last: int, index: int, count: int) -> tuple[int, int]:
    """Bounds of part `index` of `count` nearly equal parts of first..last-1."""
    length = last - first
    return first + index * length // count, first + (index + 1) * length // count


def _parameters(optimizer: torch.optim.Optimizer) -> Iterable[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
