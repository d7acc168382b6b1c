"""The step of consistency tuning: the same clean slice is seen from two noise levels of one way.

With sigma = sqrt(1 - abar) / sqrt(abar),

    loss = |f(x_t, t) - f(x_r, r)| / (sigma_t - sigma_r),   sigma_r = sigma_t (1 - gap)

where f is the clean slice that the network predicts, r has no gradient, and |.| is a pseudo-Huber distance. x_t is a
training slice with noise. x_r is

- the same slice with the same noise (easy consistency tuning: Geng et al. 2024, arXiv:2406.14548), or
- with `guidance` where one step of DDIM leads from x_t, with the clean slice that the teacher sees there, led away from
  its guide (consistency distillation: Song et al. 2023, arXiv:2303.01469, algorithm 2; of guided teachers: Luo et al.
  2023, arXiv:2310.04378).

The gap begins at 1, where the second slice is a clean one itself (the training slice, or what the teacher sees), and is
halved `halvings` times over the training; it is up to 8 times wider at low noise (Geng et al.'s mapping
n(t) = 1 + k sigmoid(-b t), k = 8, b = 1).

Where the teacher has a prior, drawing starts from it, and no higher noise level is tuned.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.diffusion.denoiser import guided
from lwddpm.diffusion.timesteps import start_timestep
from lwddpm.training.denoising import DenoisingStep
from lwddpm.training.schedule import Schedule
from lwddpm.training.stored_guide import GUIDE_FOLDER
from lwddpm.training.stored_model import load_model
from lwddpm.training.stored_prior import read_prior

TEACHER_FOLDER = "teacher"  # of a run folder: a model folder
_WIDER_AT_LOW_NOISE = 8


class ConsistencyStep(DenoisingStep):
    loss_falls = False  # two levels that come closer together are harder to see alike

    def __init__(self, job: TrainJob, dataset: Dataset, schedule: Schedule, device: torch.device) -> None:
        super().__init__(job, dataset, schedule, device)
        assert job.consistency is not None
        self.config = job.consistency
        self.sigmas = self.process.noise / self.process.signal
        self.gap = 1.0
        self.teacher: nn.Module | None = None  # where it is followed
        self.weak: nn.Module | None = None  # its guide, where it is led away from it

    def begin_from(self, teacher: Path) -> None:
        """Take over weights and prior of a model of the same network and process, before a checkpoint is loaded.

        Raises:
            CheckpointError: its files are damaged.
        """
        network, saved = load_model(teacher, self.device)
        for module in (self.model, *(average.model for average in self.averages.values())):
            module.load_state_dict(network.state_dict())
        self.prior = read_prior(teacher, saved.image_size)
        if self.prior is not None:
            self.prior = self.prior.to(self.device)
            self.num_timesteps = start_timestep(self.process, self.prior, "ddim") + 1
        if self.config.guidance is not None:
            self.teacher = self._frozen(teacher)
            self.weak = self._frozen(teacher / GUIDE_FOLDER) if self.config.guidance != 1 else None

    def _frozen(self, model_dir: Path) -> nn.Module:
        network, _ = load_model(model_dir, self.device)
        network.eval().requires_grad_(False)
        if self.precision.compile:
            network.compile()
        return network

    def take(self, step: int) -> dict[str, Tensor]:
        self.gap = 2 ** (-self.config.halvings * step / self.schedule.num_steps)
        return super().take(step)

    def _losses(
        self,
        network: nn.Module,
        x_0: Tensor,
        timesteps: Tensor,
        noise: Tensor,
        known: Mapping[str, Tensor] = {},
    ) -> Tensor:
        sigmas, earlier = self.sigmas[timesteps], self.earlier(timesteps)
        x_t = self.process.q_sample(x_0, timesteps, noise)
        seen = self._clean(network, x_t, timesteps, known)
        with torch.no_grad():
            if self.teacher is not None:
                x_0 = self._taught(x_t, timesteps, known)
                noise = self.process.noise_in(x_t, timesteps, x_0)
            x_r = self.process.q_sample(x_0, earlier.clamp(min=0), noise)
            first = self._clean(network, x_r, earlier.clamp(min=0), known).clamp(-1, 1)
        target = torch.where((earlier < 0)[:, None, None, None], x_0, first)
        squared = (seen - target).square().mean((1, 2, 3))
        distance = (squared + self.config.huber**2).sqrt() - self.config.huber
        # Beyond 1 all weigh alike: sigma is huge at late timesteps.
        return distance * sigmas.clamp(max=1) / (sigmas - self._sigma(earlier))

    def _taught(self, x_t: Tensor, timesteps: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        """The clean slices that the teacher sees, [B, 1, S, S] in [-1, 1]."""
        assert self.teacher is not None
        assert self.config.guidance is not None
        known = {name: value for name, value in known.items() if name == "given"}  # it is told of no changes
        x_0 = self._clean(self.teacher, x_t, timesteps, known).clamp(-1, 1)
        if self.weak is None:
            return x_0
        weak = self._clean(self.weak, x_t, timesteps, known).clamp(-1, 1)
        return guided(x_0, weak, self.config.guidance).clamp(-1, 1)

    def earlier(self, timesteps: Tensor) -> Tensor:
        """The lower noise level of each timestep, long [B], below it; -1: the clean slice."""
        sigmas = self.sigmas[timesteps]
        gaps = (self.gap * (1 + _WIDER_AT_LOW_NOISE * (-sigmas).sigmoid())).clamp(max=1)
        below = torch.searchsorted(self.sigmas, sigmas * (1 - gaps), right=True) - 1
        return torch.minimum(below, timesteps - 1)

    def _sigma(self, timesteps: Tensor) -> Tensor:
        return torch.where(timesteps < 0, 0, self.sigmas[timesteps.clamp(min=0)])

    def _clean(self, network: nn.Module, x_t: Tensor, timesteps: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        prediction = self._predicted(network, x_t, timesteps, known)
        return self.process.predict_x_0(x_t, timesteps, prediction.to(x_t.dtype))
