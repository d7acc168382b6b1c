"""The chain from noise to slices: diffusers' schedulers and Heun's method, with the platform's denoiser.

Two choices keep it exact and bounded for every schedule and prediction type:

* The scheduler runs on a *respaced* chain that holds only the visited timesteps (Nichol & Dhariwal 2021, section 4),
  so that its next step is the next visited one. diffusers' DDIM would otherwise step to `t - T // n`, which is that
  step only where n divides T.
* The scheduler is given the clean slices that the prediction implies, clamped to [-1, 1]. With epsilon and the cosine
  schedule they are otherwise huge at late timesteps (abar_T = 2.4e-9), and DPM-Solver++ diverges.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lwddpm.conditions import NULL, Vocabulary
from lwddpm.config import DiffusionConfig, SamplingConfig, leads_away_from
from lwddpm.diffusion.denoiser import Denoiser, Estimator
from lwddpm.diffusion.editing import Edit
from lwddpm.diffusion.karras import heun
from lwddpm.diffusion.prior import Prior
from lwddpm.diffusion.process import DiffusionProcess, noise_schedule
from lwddpm.diffusion.streams import draw_noise
from lwddpm.diffusion.timesteps import planned_timesteps, starting_prior, visited_timesteps


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
    edit: Edit | None = None,
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
        edit: changes what the sampler is told.

    Returns:
        Clean slices, float32 [B, 1, H, W], not quite inside [-1, 1].
    """
    weak = given_weak = None
    if sampling.guidance != 1:
        away_from = leads_away_from(sampling, has_guide=guide is not None)
        weak = model if away_from == "unconditional" else guide
        given_weak = given if away_from == "guide" or given is None else torch.full_like(given, NULL)
    ordinary = Denoiser(model, process, sampling, weak, trusted, given, given_weak)
    denoiser: Estimator = ordinary if edit is None else edit.denoiser(ordinary)
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


@dataclass(frozen=True)
class Chain:
    """What a sampler goes through: where it starts, and which timesteps it visits.

    Attributes:
        starts_from: the prior, or None: from noise.
        trusted: the prior where it also corrects the network.
        guide: the weaker network, where there is guidance.
        edit: what is other than in an ordinary drawing.
    """

    process: DiffusionProcess
    visited: Tensor
    starts_from: Prior | None
    trusted: Prior | None
    guide: nn.Module | None
    edit: Edit

    @classmethod
    def of(
        cls,
        diffusion: DiffusionConfig,
        sampling: SamplingConfig,
        prior: Prior | None,
        guide: nn.Module | None,
        device: torch.device | str,
        vocabulary: Vocabulary | None = None,
        edit: Edit | None = None,
    ) -> "Chain":
        if prior is None and (sampling.start == "gaussian" or sampling.calibrate):
            raise ValueError("a start from the prior, and calibrating, take a model that has one")
        if sampling.condition_guidance != 1 and vocabulary is None:
            raise ValueError("condition_guidance takes a model that has conditions")
        if (
            guide is None
            and sampling.guidance != 1
            and (vocabulary is None or "guide" in leads_away_from(sampling, has_guide=False))
        ):
            raise ValueError("guidance takes a model that has a guide, or conditions")
        process = DiffusionProcess(diffusion).to(device)
        prior = prior.to(device) if prior is not None else None
        trusted = prior if sampling.calibrate else None
        starts_from = starting_prior(sampling, prior)
        visited = planned_timesteps(process, sampling, starts_from, edit)
        return cls(process, visited, starts_from, trusted, guide if sampling.guidance != 1 else None, edit or Edit())

    def begin(self, noise: Tensor, streams: list[torch.Generator], asked: Tensor | None = None) -> Tensor:
        """Slices at the first visited timestep, of unit noise [B, 1, S, S]; from a prior, of the streams' next numbers
        and the class that is asked for too."""
        first = int(self.visited[0]) if len(self.visited) else -1
        return self.edit.begin(
            self.process, first, self.starts_from, noise, lambda shape: draw_noise(shape, streams, noise.device), asked
        )

    def walk(
        self,
        model: nn.Module,
        sampling: SamplingConfig,
        x: Tensor,
        streams: list[torch.Generator],
        on_step: Callable[[Tensor], None] | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        if not len(self.visited):
            return x
        return denoise(
            model,
            self.process,
            sampling,
            self.visited,
            x,
            streams,
            on_step,
            self.trusted,
            self.guide,
            given,
            self.edit,
        )
