"""Drawing that begins with something given: part of a slice, a slice, two drawings. `generate` takes an `Edit`.

Inpainting asks for slices that agree with known pixels. At each step the clean slices E[x_0 | x_t] of the denoiser
become E[x_0 | x_t, known pixels], as far as x_0 given x_t is Gaussian (moment matching posterior sampling, Rozet et al.
2024, arXiv:2405.13712), so that any sampler can take them, in few steps:

    D' = D + C K^T (K C K^T + d^2)^-1 (y - K D),    C = n^2 / a dD/dx_t

with signal a, noise n, K: which pixels are known, y: their values, d: how closely they are to be met. C is the
covariance of x_0 given x_t (Tweedie's formula of second order) and is never formed: the linear system is solved in the
few directions of GMRES, each a vector-Jacobian product. For Gaussian slices this draws from the conditional
distribution itself. Replacing the known pixels by noised ones at each step, without or with resampling (RePaint,
Lugmayr et al. 2022, arXiv:2201.09865), takes no gradients, draws too little variety and blurs; docs/editing.md has both
measured.

A variation is the slice noised to a timestep and denoised (SDEdit, Meng et al. 2022, arXiv:2108.01073).

Where a drawing starts from the prior, so does an edit: from the prior given what is known of the slice (`Prior.given`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lwddpm.config import SamplingConfig
from lwddpm.diffusion.denoiser import Denoiser, Estimator, calls_of_step, noise_level
from lwddpm.diffusion.intensity import from_uint8
from lwddpm.diffusion.prior import Prior
from lwddpm.diffusion.process import DiffusionProcess

DIRECTIONS = 3  # of GMRES: the Jacobian products of a step; measured, see docs/editing.md
TOLERANCE = 0.02  # d: standard deviation by which known pixels are met, in intensities from -1 to 1; two grey levels

Draw = Callable[[tuple[int, ...]], Tensor]  # unit noise of a shape, each image's from its own stream


class Edit:
    """What is other than in an ordinary drawing: here nothing."""

    takes_gradients = False

    def first_timestep(self, planned: int, num_train_timesteps: int) -> int:
        """The first timestep that the network sees, given that of an ordinary drawing; -1: it sees none."""
        return planned

    def begin(
        self,
        process: DiffusionProcess,
        first: int,
        prior: Prior | None,
        noise: Tensor,
        draw: Draw,
        asked: Tensor | None = None,
    ) -> Tensor:
        """Slices at the first timestep, float32 [B, 1, S, S].

        Args:
            prior: what the drawing starts from; None: from noise.
            noise: unit, float32 [B, 1, S, S], as in an ordinary drawing.
            draw: further noise.
            asked: the class of each slice, as of `Prior.clean`.
        """
        if prior is None:
            return noise
        signal, level = float(process.signal[first]), float(process.noise[first])
        return prior.noisy(draw((len(noise), prior.num_draws)), noise, signal, level, asked)

    def asked_as(self, indices: Sequence[int]) -> Sequence[int]:
        """Whose conditions the images have, of an ordinary drawing's images."""
        return indices

    def denoiser(self, ordinary: Denoiser) -> Estimator:
        """What the sampler is told at each step."""
        return ordinary

    def finished(self, images: Tensor) -> Tensor:
        """The result of drawn slices, uint8 [B, S, S]."""
        return images

    def calls(self, sampling: SamplingConfig, sigma: float) -> int:
        """Network calls of a step at a noise level; a vector-Jacobian product counts as one."""
        return calls_of_step(sampling, sigma)


@dataclass(frozen=True)
class Inpainting(Edit):
    """Draws a region of a slice anew; outside of it the result is the source to the last bit.

    Attributes:
        source: uint8 [S, S].
        mask: True where pixels are drawn, bool [S, S].
    """

    source: Tensor
    mask: Tensor
    takes_gradients = True

    def begin(
        self,
        process: DiffusionProcess,
        first: int,
        prior: Prior | None,
        noise: Tensor,
        draw: Draw,
        asked: Tensor | None = None,
    ) -> Tensor:
        if prior is None:
            return noise
        signal, level = float(process.signal[first]), float(process.noise[first])
        source = from_uint8(self.source, process.config.intensity_gamma).to(noise.device)
        # Known pixels are met no closer than by the noise that hides them at this timestep: the few directions of a
        # prior cannot meet them better.
        x_0 = prior.given(
            source.expand(noise.shape),
            ~self.mask.to(noise.device).expand(noise.shape),
            level / signal,
            draw((len(noise), prior.num_draws)),
            asked,
        )
        return (signal * x_0 + level * noise).to(noise.dtype)

    def denoiser(self, ordinary: Denoiser) -> Estimator:
        device = ordinary.process.signal.device
        source = from_uint8(self.source, ordinary.process.config.intensity_gamma).to(device)
        return _GivenPixels(ordinary, source, ~self.mask.to(device))

    def finished(self, images: Tensor) -> Tensor:
        return torch.where(self.mask.to(images.device), images, self.source.to(images.device))

    def calls(self, sampling: SamplingConfig, sigma: float) -> int:
        guided = calls_of_step(sampling, sigma)
        return 1 + DIRECTIONS + (guided if guided > 1 else 0)


@dataclass(frozen=True)
class Variation(Edit):
    """Noises a slice by some of the T noising steps and denoises it: 0 steps leave it as it is, T leave nothing of it.

    Attributes:
        source: uint8 [S, S].
        noising_steps: below T; of all T steps the result is an ordinary drawing, see `variation`.
    """

    source: Tensor
    noising_steps: int

    def first_timestep(self, planned: int, num_train_timesteps: int) -> int:
        return min(planned, self.noising_steps - 1)

    def begin(
        self,
        process: DiffusionProcess,
        first: int,
        prior: Prior | None,
        noise: Tensor,
        draw: Draw,
        asked: Tensor | None = None,
    ) -> Tensor:
        source = from_uint8(self.source, process.config.intensity_gamma).to(noise.device).expand(noise.shape)
        timestep = self.noising_steps - 1
        if timestep < 0:
            return source
        noised = process.q_sample(source, torch.full((len(noise),), timestep, device=noise.device), noise)
        if timestep <= first:
            return noised
        assert prior is not None  # from noise the first timestep is T - 1
        everywhere = torch.ones_like(noised, dtype=torch.bool)
        seen, sigma = noised / float(process.signal[timestep]), noise_level(process, timestep)
        x_0 = prior.given(seen, everywhere, sigma, draw((len(noise), prior.num_draws)), asked)
        again = draw(tuple(noise.shape))
        return (float(process.signal[first]) * x_0 + float(process.noise[first]) * again).to(noise.dtype)


def variation(source: Tensor, strength: float, num_train_timesteps: int) -> Edit:
    """The variation of a slice by a strength from 0 (the slice itself) to 1 (an ordinary drawing)."""
    noising_steps = round(strength * num_train_timesteps)
    return Variation(source, noising_steps) if noising_steps < num_train_timesteps else Edit()


@dataclass(frozen=True)
class Between(Edit):
    """Goes from the first drawing of one seed to that of another: frame i of N lies at i / (N - 1) of the way.

    All random numbers that a drawing starts from (noise, draws of the prior, a GAN's latent) go along the great circle
    between those of the seeds (`spherical`), so that each frame's are as large as random ones are.

    Attributes:
        seeds: of the two ends, whose drawings the first and the last frame are.
        frames: 2 or more.
    """

    seeds: tuple[int, int]
    frames: int

    def asked_as(self, indices: Sequence[int]) -> Sequence[int]:
        return [0] * len(indices)  # a way has one class

    def fractions(self, indices: Tensor) -> Tensor:
        """How far frames are on their way, float64 [B]."""
        return indices.double() / (self.frames - 1)


def spherical(first: Tensor, last: Tensor, fractions: Tensor) -> Tensor:
    """Spherical interpolation (Shoemake 1985): sin((1 - f) w) / sin(w) first + sin(f w) / sin(w) last.

    Args:
        first, last: float [B, ...], at an angle w of less than a half turn.
        fractions: f of each, from 0 (first, to the last bit) to 1 (last), float [B].
    """
    a, b = first.double().flatten(1), last.double().flatten(1)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    angle = cosine.clamp(-1, 1).acos()
    fractions = fractions.to(angle)
    straight = angle < 1e-6  # the same numbers: their sine is 0
    sine = torch.where(straight, 1, angle.sin())
    of_first = torch.where(straight, 1 - fractions, ((1 - fractions) * angle).sin() / sine)
    of_last = torch.where(straight, fractions, (fractions * angle).sin() / sine)
    of_first, of_last = torch.where(fractions == 1, 0, of_first), torch.where(fractions == 0, 0, of_last)
    of_first, of_last = torch.where(fractions == 0, 1, of_first), torch.where(fractions == 1, 1, of_last)
    return (of_first[:, None] * a + of_last[:, None] * b).to(first.dtype).reshape(first.shape)


@dataclass(frozen=True)
class _GivenPixels:
    """Clean slices given x_t and the known pixels; see the module.

    Attributes:
        ordinary: clean slices given x_t alone.
        source: intensities in [-1, 1], float32 [S, S].
        known: bool [S, S].
    """

    ordinary: Denoiser
    source: Tensor
    known: Tensor

    @property
    def process(self) -> DiffusionProcess:
        return self.ordinary.process

    def clean(self, x: Tensor, timestep: int) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            # of the network alone: the slices that guidance extrapolates to have no covariance
            own = self.ordinary.alone().clean(x, timestep)
        sigma = noise_level(self.process, timestep)
        guided = self.ordinary.guided_at(timestep)
        expected = self.ordinary.clean(x.detach(), timestep) if guided else own.detach()
        factor = sigma * float(self.process.noise[timestep])  # n^2 / a

        def covariance(directions: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(own, x, directions.to(own.dtype), retain_graph=True)
            return factor * product.double()

        known = self.known.to(torch.float64)
        missed = (self.source - expected).double() * known
        shift = _solved(covariance, known, missed)
        return torch.where(self.known, self.source, (expected + shift.to(x.dtype)).clamp(-1, 1))


def _solved(covariance: Callable[[Tensor], Tensor], known: Tensor, missed: Tensor) -> Tensor:
    """C K^T v, where v solves (K C K^T + d^2) v = missed as well as DIRECTIONS directions can (GMRES), for each image.

    GMRES and not conjugate gradients: a network's Jacobian is not quite symmetric, least of all where noise is high.

    Args:
        covariance: C as a product with [B, 1, S, S].
        known: 1 where pixels are known, [S, S].
        missed: zero elsewhere, float64 [B, 1, S, S].
    """
    length = _norm(missed)
    basis = [missed / length.clamp(min=1e-12)]
    products: list[Tensor] = []
    projected = missed.new_zeros(len(missed), DIRECTIONS + 1, DIRECTIONS)
    for column in range(DIRECTIONS):
        products.append(covariance(basis[column]))
        following = products[column] * known + TOLERANCE**2 * basis[column]
        for row, direction in enumerate(basis):
            along = (following * direction).sum((1, 2, 3))
            projected[:, row, column] = along
            following = following - along[:, None, None, None] * direction
        size = _norm(following)
        projected[:, column + 1, column] = size.flatten()
        basis.append(following / size.clamp(min=1e-12))
    wanted = torch.zeros_like(projected[:, :, :1])
    wanted[:, 0, 0] = length.flatten()
    weights = torch.linalg.pinv(projected) @ wanted
    return torch.stack([weights[:, k, :, None, None] * product for k, product in enumerate(products)]).sum(0)


def _norm(x: Tensor) -> Tensor:
    return x.square().sum((1, 2, 3), keepdim=True).sqrt()
