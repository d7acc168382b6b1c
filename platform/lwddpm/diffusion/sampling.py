"""Drawing slices with diffusers' samplers, and Heun's, each image from its own random stream.

Three choices keep the samplers exact and bounded for every schedule and prediction type:

* The scheduler runs on a *respaced* chain that holds only the visited timesteps (Nichol & Dhariwal 2021, section 4),
  so that its next step is the next visited one. diffusers' DDIM would otherwise step to `t - T // n`, which is that
  step only where n divides T.
* Visited timesteps are spaced "trailing": the first is T - 1, where training ends (Lin et al. 2024, arXiv:2305.08891);
  or they are those nearest to the noise levels of `karras`.
* The scheduler is given the clean slices that the prediction implies, clamped to [-1, 1]. With epsilon and the cosine
  schedule they are otherwise huge at late timesteps (abar_T = 2.4e-9), and DPM-Solver++ diverges.

A model with a prior (`prior`) starts where the signal is strong enough for its network to say more than the prior does,
and one with a guide, a weaker network, can be led away from what that would draw (`denoiser`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lwddpm.conditions import NULL, Vocabulary
from lwddpm.config import DiffusionConfig, SamplingConfig, leads_away_from
from lwddpm.diffusion.denoiser import Denoiser, is_guided, noise_level
from lwddpm.diffusion.intensity import from_uint8, gamma_of, to_uint8
from lwddpm.diffusion.karras import heun, karras_timesteps
from lwddpm.diffusion.prior import Prior
from lwddpm.diffusion.process import DiffusionProcess, noise_schedule

Device = torch.device | str
RECONSTRUCTION_STEPS = 50
# Signal sqrt(abar_t) at which a start from the prior hands over at the latest, measured (docs/sampling.md): a sampler
# that adds noise makes up for an early start, a deterministic one only loses steps by it.
LATEST_START = {"ddpm": 0.7, "sde-dpmsolver++": 0.7, "ddim": 0.9, "dpmsolver++": 0.9, "unipc": 0.9, "heun": 0.9}


def visited_timesteps(num_train_timesteps: int, num_inference_steps: int) -> Tensor:
    """Timesteps that a sampler visits, long [num_inference_steps], falling evenly from num_train_timesteps - 1.

    Raises:
        ValueError: more steps than the model was trained with.
    """
    if not 1 <= num_inference_steps <= num_train_timesteps:
        raise ValueError(f"num_inference_steps must be from 1 to {num_train_timesteps}, got {num_inference_steps}")
    stride = num_train_timesteps / num_inference_steps
    return torch.from_numpy(np.round(num_train_timesteps - stride * np.arange(num_inference_steps)).astype(int) - 1)


def start_timestep(process: DiffusionProcess, prior: Prior, sampler: str) -> int:
    """The first timestep that the network sees after a start from the prior: where it begins to be trusted, at the
    latest that of LATEST_START."""
    latest = max(int((process.signal >= LATEST_START[sampler]).sum()) - 1, 0)
    return max(latest, prior.trusted_until(len(process.signal)))


def planned_timesteps(process: DiffusionProcess, sampling: SamplingConfig, prior: Prior | None) -> Tensor:
    """Falling timesteps at which the network is called, long [n].

    Args:
        prior: where the way starts from it: then below the timesteps that need no network; None: from noise.
    """
    total, steps = process.config.num_train_timesteps, sampling.num_inference_steps
    first = total - 1 if prior is None else start_timestep(process, prior, sampling.sampler)
    if prior is not None:
        steps = min(steps, first + 1)
    return karras_timesteps(process, first, steps) if sampling.on_karras_levels else visited_timesteps(first + 1, steps)


def network_calls(diffusion: DiffusionConfig | None, sampling: SamplingConfig, prior: Prior | None) -> int:
    """Calls of a network that draw a slice: one for each visited timestep, two where it is guided, and with Heun's
    method those of all but the first once more; one of a GAN.

    Args:
        prior: of the model, if it has one; `sampling` says whether the way starts from it.
    """
    if diffusion is None:
        return 1
    process = DiffusionProcess(diffusion)
    visited = planned_timesteps(process, sampling, _start(sampling, prior)).tolist()
    asked = visited + visited[1:] if sampling.sampler == "heun" else visited
    return len(asked) + sum(is_guided(sampling, noise_level(process, timestep)) for timestep in asked)


def steps_within(calls: int, sampler: str) -> int:
    """As many steps as make so many network calls at most, without guidance; at least 1."""
    return max(1, (calls + 1) // 2 if sampler == "heun" else calls)


def _start(sampling: SamplingConfig, prior: Prior | None) -> Prior | None:
    """What the way starts from: a model's prior, or None: noise."""
    return None if sampling.start == "noise" else prior


def make_scheduler(diffusion: DiffusionConfig, sampling: SamplingConfig, visited: Tensor | None = None) -> Any:
    """The diffusers scheduler of a sampler, ready to step.

    ddpm: Ho et al. 2020 (arXiv:2006.11239), algorithm 2. ddim: Song et al. 2021 (arXiv:2010.02502), eq. 12.
    dpmsolver++: Lu et al. 2022 (arXiv:2211.01095), algorithm 2 (2M); sde-dpmsolver++ is its stochastic form.
    unipc: Zhao et al. 2023 (arXiv:2302.04867), algorithms 5 and 7 (order 2, B_2(h)). Heun's method takes none.

    Its own timesteps count the visited ones (n - 1 to 0) and its model output is the clean slice.

    Args:
        diffusion: schedule that the model was trained with.
        sampling: sampler and number of steps.
        visited: falling timesteps to visit, long [n]; default: `visited_timesteps` of the two configs.

    Returns:
        A DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler or UniPCMultistepScheduler. The last two have state:
        make one for each batch.
    """
    # here: importing diffusers takes over a second of every process that could draw and does not
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

    if visited is None:
        visited = visited_timesteps(diffusion.num_train_timesteps, sampling.num_inference_steps)
    abar = (1 - noise_schedule(diffusion.beta_schedule, diffusion.num_train_timesteps)).cumprod(0)[visited.flip(0)]
    betas = 1 - abar / torch.cat([abar.new_ones(1), abar[:-1]])
    options = {
        "num_train_timesteps": len(visited),
        "trained_betas": betas.tolist(),
        "prediction_type": "sample",
        "timestep_spacing": "trailing",
    }
    match sampling.sampler:
        case "ddpm":
            scheduler: Any = DDPMScheduler(**options, clip_sample=False)
        case "ddim":
            scheduler = DDIMScheduler(**options, clip_sample=False)
        case "dpmsolver++" | "sde-dpmsolver++":
            scheduler = DPMSolverMultistepScheduler(**options, algorithm_type=sampling.sampler)
        case "unipc":
            scheduler = UniPCMultistepScheduler(**options)
        case _:
            raise ValueError(f"{sampling.sampler} is no sampler of a diffusion model")
    # diffusers multiplies float32 alphas, and 1 - beta of a long stride underflows.
    scheduler.alphas_cumprod = abar.float()
    scheduler.set_timesteps(len(visited))
    return scheduler


def denoise(
    model: nn.Module,
    process: DiffusionProcess,
    sampling: SamplingConfig,
    visited: Tensor,
    x: Tensor,
    streams: list[torch.Generator],
    on_step: Callable[[Tensor], None] | None = None,
    trusted: Prior | None = None,
    guide: nn.Module | None = None,
    given: Tensor | None = None,
) -> Tensor:
    """Walk noisy slices from the first visited timestep to the clean ones.

    Args:
        process: forward process that the model was trained with, on the device of x.
        sampling: `sampler`, `eta` and guidance; the steps are those of `visited`.
        visited: falling timesteps, long [n]; see `visited_timesteps`.
        x: slices at the first visited timestep, float32 [B, 1, H, W].
        streams: one generator for each slice; read at every step of a stochastic sampler.
        on_step: called with the state after each step; the last one is the result.
        trusted: corrects the network's clean slices by how far it is to be believed.
        guide: a weaker network; what guidance leads away from follows from it and `sampling`.
        given: what the network is told of the slices, float32 [B, C], see `conditions`; None: nothing.

    Returns:
        Clean slices, float32 [B, 1, H, W], not quite inside [-1, 1].
    """
    weak = given_weak = None
    if sampling.guidance != 1:
        away_from = leads_away_from(sampling, has_guide=guide is not None)
        weak = model if away_from == "unconditional" else guide
        given_weak = given if away_from == "guide" or given is None else torch.full_like(given, NULL)
    denoiser = Denoiser(model, process, sampling, weak, trusted, given, given_weak)
    if sampling.sampler == "heun":
        return heun(denoiser, visited, x, on_step)
    scheduler = make_scheduler(process.config, sampling, visited)
    options: dict[str, Any] = {} if sampling.sampler == "unipc" else {"generator": streams}
    if sampling.sampler == "ddim":
        options["eta"] = sampling.eta
    for position, timestep in zip(scheduler.timesteps.tolist(), visited.tolist(), strict=True):
        x = scheduler.step(denoiser.clean(x, timestep), position, x, **options).prev_sample
        if on_step is not None:
            on_step(x)
    return x


def _noise(shape: tuple[Any, ...], streams: list[torch.Generator], device: torch.device) -> Tensor:
    """Standard normal noise, each image's from its own stream."""
    from diffusers.utils.torch_utils import randn_tensor

    return randn_tensor(shape, streams, device)


@dataclass(frozen=True)
class _Path:
    """The way of a sampler: where it starts, and which timesteps it visits.

    Attributes:
        starts_from: the prior, or None: from noise.
        trusted: the prior where it also corrects the network.
        guide: the weaker network, where there is guidance.
    """

    process: DiffusionProcess
    visited: Tensor
    starts_from: Prior | None
    trusted: Prior | None
    guide: nn.Module | None

    @classmethod
    def of(
        cls,
        diffusion: DiffusionConfig,
        sampling: SamplingConfig,
        prior: Prior | None,
        guide: nn.Module | None,
        device: Device,
        vocabulary: Vocabulary | None = None,
    ) -> "_Path":
        if prior is None and (sampling.start == "gaussian" or sampling.calibrate):
            raise ValueError("a start from the prior, and calibrating, take a model that has one")
        if guide is None and sampling.guidance != 1 and (vocabulary is None or "guide" in sampling.guidance_from):
            raise ValueError("guidance takes a model that has a guide, or conditions")
        process = DiffusionProcess(diffusion).to(device)
        prior = prior.to(device) if prior is not None else None
        trusted = prior if sampling.calibrate else None
        starts_from = _start(sampling, prior)
        visited = planned_timesteps(process, sampling, starts_from)
        return cls(process, visited, starts_from, trusted, guide if sampling.guidance != 1 else None)

    def begin(self, noise: Tensor, streams: list[torch.Generator], asked: Tensor | None = None) -> Tensor:
        """Slices at the first visited timestep, of unit noise [B, 1, S, S]; from a prior, of the streams' next numbers
        and the class that is asked for too."""
        if self.starts_from is None:
            return noise
        first = int(self.visited[0])
        draws = _noise((len(noise), self.starts_from.num_draws), streams, noise.device)
        signal, level = float(self.process.signal[first]), float(self.process.noise[first])
        return self.starts_from.noisy(draws, noise, signal, level, asked)

    def walk(
        self,
        model: nn.Module,
        sampling: SamplingConfig,
        x: Tensor,
        streams: list[torch.Generator],
        on_step: Callable[[Tensor], None] | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        return denoise(
            model, self.process, sampling, self.visited, x, streams, on_step, self.trusted, self.guide, given
        )


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
        on_batch: called after each batch with its number of images.

    Returns:
        uint8 [N, S, S] on the CPU, in the order of `indices`.
    """
    images = [torch.empty(0, image_size, image_size, dtype=torch.uint8)]
    vocabulary = vocabulary_in(model)
    path = _Path.of(diffusion, sampling, prior, guide, device, vocabulary) if diffusion is not None else None
    with _inference(model):
        for batch in _batches(indices, sampling.batch_size):
            streams, given = noise_streams(sampling.seed, batch), _given(vocabulary, sampling, batch, device)
            if path is None:
                latents = _noise((len(batch), model.latent_dim), streams, torch.device(device))
                latents = truncated(latents, sampling.truncation)
                x = (model(latents) if given is None else model(latents, given)).float()
            else:
                noise = _noise((len(batch), 1, image_size, image_size), streams, torch.device(device))
                begun = path.begin(noise, streams, _class(vocabulary, given))
                x = path.walk(model, sampling, begun, streams, given=given)
            images.append(to_uint8(x[:, 0], gamma_of(diffusion)).cpu())
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
    path = _Path.of(diffusion, sampling, prior, guide, device, vocabulary)
    with _inference(model):
        streams = noise_streams(sampling.seed, indices)
        noise = _noise((len(indices), 1, image_size, image_size), streams, torch.device(device))
        given = _given(vocabulary, sampling, indices, device)
        begun = path.begin(noise, streams, _class(vocabulary, given))
        states, noising_steps = [begun], torch.cat([path.visited + 1, path.visited.new_zeros(1)])
        if path.starts_from is not None:
            states.insert(0, noise)
            noising_steps = torch.cat([noising_steps.new_tensor([diffusion.num_train_timesteps]), noising_steps])
        path.walk(model, sampling, states[-1], streams, on_step=states.append, given=given)
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
            noise = _noise(x_0.shape, streams, x_0.device)
            x = process.q_sample(x_0, torch.full((len(batch),), timestep, device=device), noise)
            x = denoise(model, process, ddim, visited, x, streams)
            restored.append(to_uint8(x[:, 0], diffusion.intensity_gamma).cpu())
    return torch.cat(restored)


def noise_streams(seed: int, indices: Sequence[int]) -> list[torch.Generator]:
    """One generator for each image. They live on the CPU, so that images are the same on every device.

    torch keeps 32 bits of a CPU seed: counting up from a hash of `seed` never repeats one among 2^32 images.
    """
    first = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return [torch.Generator().manual_seed((first + index) % 2**32) for index in indices]


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
def _inference(model: nn.Module) -> Iterator[None]:
    """Evaluation and inference mode; the model is put back as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)
