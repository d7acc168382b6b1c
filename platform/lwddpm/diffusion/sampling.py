"""Drawing slices, each from its own random stream: from noise or a prior, in frames, or of slices noised before.

A model with a guide, a weaker network, can be led away from what that would draw (`denoiser`). A drawing may begin with
something given, such as a part of a slice (`editing`). `chain` has the samplers, `timesteps` what they visit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from lwddpm.conditions import Vocabulary
from lwddpm.config import DiffusionConfig, SamplingConfig
from lwddpm.diffusion.chain import Chain, denoise
from lwddpm.diffusion.editing import Between, Edit
from lwddpm.diffusion.intensity import from_uint8, gamma_of, to_uint8
from lwddpm.diffusion.prior import Prior
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.diffusion.streams import StreamsBetween, draw_noise, noise_streams
from lwddpm.diffusion.timesteps import visited_timesteps

Device = torch.device | str
RECONSTRUCTION_STEPS = 50


def generate(
    model: nn.Module,
    diffusion: DiffusionConfig | None,
    sampling: SamplingConfig,
    indices: Sequence[int],
    image_size: int,
    device: Device,
    *,
    prior: Prior | None = None,
    guide: nn.Module | None = None,
    edit: Edit | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Tensor:
    """Draw images; image i depends only on (model, settings, sampling.seed, i), not on its batch or shard.

    A model with conditions draws image i of those that `conditions.Vocabulary.assigned` names.

    Runs in the autocast context of the caller; leaves the model in the mode it was in.

    Args:
        model: predicts from (x_t [B, 1, S, S], timesteps [B]), on `device`; or a GAN's generator, which draws from
            latents [B, model.latent_dim].
        diffusion: what the model was trained with; None for a generator.
        indices: which images of the endless sequence to draw, each at least 0.
        image_size: S, divisible by the model's down-sampling.
        prior: of the model, on any device, if it has one; `sampling` says whether it is used.
        guide: of the model, on `device` and in eval mode, if it has one; used where `sampling` asks for guidance by it.
        edit: what the images begin with; image i then depends on that too. Of a generator only `Between`.
        on_batch: called after each batch with its number of images.

    Returns:
        uint8 [N, S, S] on the CPU, in the order of `indices`.
    """
    images = [torch.empty(0, image_size, image_size, dtype=torch.uint8)]
    vocabulary, edit = vocabulary_in(model), edit or Edit()
    chain = Chain.of(diffusion, sampling, prior, guide, device, vocabulary, edit) if diffusion is not None else None
    with _inference(model, gradients=edit.takes_gradients):
        for batch in _batches(indices, sampling.batch_size):
            streams = noise_streams(sampling.seed, batch)
            given = _given(vocabulary, sampling, edit.asked_as(batch), device)
            if isinstance(edit, Between):
                streams = StreamsBetween(edit, batch)
            if chain is None:
                latents = draw_noise((len(batch), model.latent_dim), streams, torch.device(device))
                latents = truncated(latents, sampling.truncation)
                x = (model(latents) if given is None else model(latents, given)).float()
            else:
                noise = draw_noise((len(batch), 1, image_size, image_size), streams, torch.device(device))
                begun = chain.begin(noise, streams, _class(vocabulary, given))
                x = chain.walk(model, sampling, begun, streams, given=given)
            images.append(edit.finished(to_uint8(x[:, 0], gamma_of(diffusion)).cpu()))
            if on_batch is not None:
                on_batch(len(batch))
    return torch.cat(images)


def truncated(latents: Tensor, limit: float | None) -> Tensor:
    """Latents of the normal distribution cut off at `limit` standard deviations, from standard normal ones.

    The truncation trick (Marchesi 2017, arXiv:1706.00082; Brock et al. 2019, arXiv:1809.11096): more typical slices,
    less variety. Each number is moved by its quantile rather than drawn again while it lies outside, so that a seed
    gives neighbouring slices at neighbouring limits.

    Args:
        latents: any shape.
        limit: above 0; None: as they are.
    """
    if limit is None:
        return latents
    share = float(torch.special.ndtr(torch.tensor(limit, dtype=torch.float64)))  # below the upper end
    quantiles = 1 - share + (2 * share - 1) * torch.special.ndtr(latents.double())
    return torch.special.ndtri(quantiles).clamp(-limit, limit).to(latents.dtype)


def denoising_trajectory(
    model: nn.Module,
    diffusion: DiffusionConfig,
    sampling: SamplingConfig,
    indices: Sequence[int],
    image_size: int,
    device: Device,
    num_frames: int,
    *,
    prior: Prior | None = None,
    guide: nn.Module | None = None,
) -> tuple[Tensor, Tensor]:
    """The way from noise to the images of `generate`, in evenly spaced frames; all images are one batch.

    Returns:
        Frames, uint8 [N, F, S, S] on the CPU, from pure noise to the image; and the number of noising steps still in
        each frame, long [F], from num_train_timesteps to 0 (timestep t is the result of t + 1 noising steps).

    Raises:
        ValueError: fewer than 2 frames, or more than the sampler has.
    """
    if not 2 <= num_frames <= sampling.num_inference_steps + 1:
        raise ValueError(f"num_frames must be from 2 to {sampling.num_inference_steps + 1}, got {num_frames}")
    vocabulary = vocabulary_in(model)
    chain = Chain.of(diffusion, sampling, prior, guide, device, vocabulary)
    with _inference(model):
        streams = noise_streams(sampling.seed, indices)
        noise = draw_noise((len(indices), 1, image_size, image_size), streams, torch.device(device))
        given = _given(vocabulary, sampling, indices, device)
        begun = chain.begin(noise, streams, _class(vocabulary, given))
        states, noising_steps = [begun], torch.cat([chain.visited + 1, chain.visited.new_zeros(1)])
        if chain.starts_from is not None:
            states.insert(0, noise)
            noising_steps = torch.cat([noising_steps.new_tensor([diffusion.num_train_timesteps]), noising_steps])
        chain.walk(model, sampling, states[-1], streams, on_step=states.append, given=given)
        kept = np.linspace(0, len(states) - 1, min(num_frames, len(states))).round().astype(int)
        frames = torch.stack([to_uint8(states[k][:, 0], diffusion.intensity_gamma).cpu() for k in kept], dim=1)
    return frames, noising_steps[kept]


def reconstruct(
    model: nn.Module,
    diffusion: DiffusionConfig,
    images: Tensor,
    timestep: int,
    *,
    seed: int,
    device: Device,
    batch_size: int,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """Noise images to a timestep and denoise them with deterministic DDIM in at most 50 evenly spaced steps.

    Args:
        images: uint8 [N, S, S].
        timestep: from 0 to num_train_timesteps - 1.
        seed: of the noise; each image has its own stream, as in `generate`.
        indices: number of each image's stream, so that shards can agree with the whole; default: its position.

    Returns:
        uint8 [N, S, S] on the CPU.

    Raises:
        ValueError: timestep outside the model's range.
    """
    if not 0 <= timestep < diffusion.num_train_timesteps:
        raise ValueError(f"timestep must be from 0 to {diffusion.num_train_timesteps - 1}, got {timestep}")
    process = DiffusionProcess(diffusion).to(device)
    visited = visited_timesteps(timestep + 1, min(timestep + 1, RECONSTRUCTION_STEPS))
    ddim = SamplingConfig(sampler="ddim", eta=0.0, num_inference_steps=len(visited))
    numbers = range(len(images)) if indices is None else indices
    restored = [torch.empty(0, *images.shape[1:], dtype=torch.uint8)]
    with _inference(model):
        for batch, numbers_of_batch in zip(images.split(batch_size), _batches(numbers, batch_size), strict=False):
            streams = noise_streams(seed, numbers_of_batch)
            x_0 = from_uint8(batch[:, None], diffusion.intensity_gamma).to(device)
            noise = draw_noise(x_0.shape, streams, x_0.device)
            x = process.q_sample(x_0, torch.full((len(batch),), timestep, device=device), noise)
            x = denoise(model, process, ddim, visited, x, streams)
            restored.append(to_uint8(x[:, 0], diffusion.intensity_gamma).cpu())
    return torch.cat(restored)


def vocabulary_in(model: nn.Module) -> Vocabulary | None:
    """Of a network's conditions; None where it has none."""
    return getattr(model, "vocabulary", None)


def _given(
    vocabulary: Vocabulary | None, sampling: SamplingConfig, indices: Sequence[int], device: Device
) -> Tensor | None:
    """What a network is told of the images of a drawing, float32 [B, C]."""
    if vocabulary is None:
        return None
    return torch.from_numpy(vocabulary.assigned(sampling.conditions, sampling.like, indices)).to(device)


def _class(vocabulary: Vocabulary | None, given: Tensor | None) -> Tensor | None:
    """The class of each image, as it is given, float32 [B]; None where there are no classes."""
    if vocabulary is None or given is None or vocabulary.classes is None:
        return None
    return given[:, vocabulary.conditions.index(vocabulary.classes)]


def _batches(indices: Sequence[int], batch_size: int) -> Iterator[Sequence[int]]:
    return (indices[start : start + batch_size] for start in range(0, len(indices), batch_size))


@contextmanager
def _inference(model: nn.Module, *, gradients: bool = False) -> Iterator[None]:
    """Evaluation and inference mode, or one in which gradients can be asked for; the model is put back as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad() if gradients else torch.inference_mode():
            yield
    finally:
        model.train(was_training)
