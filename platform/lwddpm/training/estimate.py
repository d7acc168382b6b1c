"""What a training needs, computed without running it: on torch's meta device, in a second, for any size."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lwddpm.conditions import Vocabulary
from lwddpm.config import TrainingJob
from lwddpm.models.build import build_model, count_parameters
from lwddpm.models.gan import Discriminator
from lwddpm.training.adversarial import LOSSES, gradient_penalty

_FLOAT32 = 4
# float32 copies of every parameter: weights, gradient, Adam's two moments, EMA
_COPIES = 5
_COPIES_OF_DISCRIMINATOR = 4


@dataclass(frozen=True)
class ResourceEstimate:
    """Of one worker, for its share of the global batch.

    Attributes:
        parameters: of the network; of a GAN, of the generator.
        memory_mib: weights, gradients, optimizer state, EMA and the activations kept for the backward pass, in
            float32; the process itself, and what the allocator leaves unused, come on top.
        step_tflop: floating-point operations of a training step, forward and backward, in 1e12; the mean over steps on
            whole slices and on crops.
    """

    parameters: int
    memory_mib: int
    step_tflop: float


def estimate_resources(job: TrainingJob, vocabulary: Vocabulary | None = None) -> ResourceEstimate:
    """Count a training step's memory and operations; of an elastic job with its fewest workers.

    Args:
        vocabulary: of the model's conditions; without, a conditional model is counted without what tells it of them.
    """
    share = -(-job.training.batch_size // (job.workers.min_count * job.training.grad_accumulation_steps))
    size = job.data.image_size
    parameters = count_parameters(job.model, size, vocabulary)
    copies = (_COPIES + len(job.training.ema_lengths)) * parameters
    with torch.device("meta"):
        model = build_model(job.model, size, vocabulary)
        if job.adversarial is None:
            x, timesteps = torch.empty(share, 1, size, size), torch.zeros(share, dtype=torch.long)
            flops, kept = _cost(lambda: model(x, timesteps).sum())
            patches = job.training.patches
            if patches is not None and patches.share > 0:
                side = patches.side(size)
                crops = torch.empty(share, 1, side, side)  # where they lie costs nothing
                of_crops, _ = _cost(lambda: model(crops, timesteps).sum())
                flops = round((1 - patches.share) * flops + patches.share * of_crops)
        else:
            discriminator = Discriminator(job.model, size, job.adversarial.discriminator_norm, vocabulary)
            loss, penalised = LOSSES[job.model.family], job.adversarial.gradient_penalty is not None
            copies += _COPIES_OF_DISCRIMINATOR * sum(parameter.numel() for parameter in discriminator.parameters())
            real, mixing = torch.empty(share, 1, size, size), torch.empty(share)
            latents = torch.empty(share, job.model.latent_dim or 0)

            def discriminator_loss() -> Tensor:
                with torch.no_grad():
                    fake = model(latents)
                total = loss.discriminator(*discriminator(torch.cat([real, fake])).chunk(2))
                if not penalised:
                    return total
                # a clone, since FlopCounterMode fails on a module whose input is a leaf that needs a gradient
                return total + gradient_penalty(lambda x: discriminator(x.clone()), real, fake, mixing)

            flops, kept = _cost(lambda: loss.generator(discriminator(model(latents))))
            flops_of_update, kept_by_update = _cost(discriminator_loss)
            flops, kept = flops + job.adversarial.n_critic * flops_of_update, max(kept, kept_by_update)
    total = flops * job.training.grad_accumulation_steps
    return ResourceEstimate(parameters, (kept + _FLOAT32 * copies) // 2**20, round(total / 1e12, 4))


def _cost(loss: Callable[[], Tensor]) -> tuple[int, int]:
    """Floating-point operations of a forward and backward pass, and bytes kept for the latter."""
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    flops = FlopCounterMode(display=False)
    with flops, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss().backward()
    return flops.get_total_flops(), kept
