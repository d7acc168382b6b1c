"""What a job will need, computed without running it: on torch's meta device, in a second, for any size."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from lwddpm.config import TrainingJob
from lwddpm.models.unet import build_model, count_parameters

_FLOAT32 = 4
# float32 copies of every parameter: weights, gradient, Adam's two moments, EMA
_COPIES = 5


@dataclass(frozen=True)
class Estimate:
    """Per worker, for its share of the global batch.

    Attributes:
        parameters: of the network.
        memory_mib: weights, gradients, optimizer state, EMA and the activations kept for the backward pass, in
            float32; the process itself, and what the allocator leaves unused, come on top.
        step_tflop: floating-point operations of a training step, forward and backward, in 1e12.
    """

    parameters: int
    memory_mib: int
    step_tflop: float


def estimate(job: TrainingJob) -> Estimate:
    """Count a training step's memory and operations; of an elastic job with its fewest workers."""
    share = -(-job.training.batch_size // (job.workers.min_count * job.training.grad_accumulation_steps))
    size = job.data.image_size
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.device("meta"):
        model = build_model(job.model)
        x = torch.empty(share, 1, size, size)
        timesteps = torch.zeros(share, dtype=torch.long)
        flops = FlopCounterMode(display=False)
        with flops, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(x, timesteps).sum().backward()
    parameters = count_parameters(job.model)
    total = flops.get_total_flops() * job.training.grad_accumulation_steps
    return Estimate(parameters, (kept + _COPIES * _FLOAT32 * parameters) // 2**20, round(total / 1e12, 4))
