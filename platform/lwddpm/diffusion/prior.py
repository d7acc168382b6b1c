"""What is known of noisy slices without a network: the Gaussian of the training slices, in its few largest directions.

At high noise a slice is its mean, its brightness and a few large shapes. Of a Gaussian the probability-flow path has a
closed form (Wang & Vastola 2023, arXiv:2311.10892), so that samplers may start far below timestep T - 1 without a
network call. The paths along orthogonal directions do not touch each other, and along one direction the path of *any*
distribution has a closed form: that distribution is kept as percentiles of the training slices' projections, because
brightness is skewed and a Gaussian draws too few bright slices.

    x_t = s mean + n (z - D^T D z) + D^T y,   y_k = F_k^-1(Phi((D z)_k))

with signal s, noise n, directions D, unit noise z, and F_k the mixture of normals of width n around s times percentile
k. Its least-squares estimate of the clean slice also corrects a network where noise hides the slice: `trust` says how
far the network's own estimate is to be believed at each timestep.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn

from lwddpm.diffusion.intensity import from_uint8
from lwddpm.diffusion.process import DiffusionProcess

NUM_DIRECTIONS = 16  # more make no difference at 32x32; 8 cost 2 of fd_lite0
# With so many a training slice cannot be told from others by its distance to the directions: docs/sampling.md.
SLICES_PER_DIRECTION = 32
TRUSTED = 0.87  # where samplers hand over from the prior to the network; measured, see docs/sampling.md
NUM_PERCENTILES = 65  # from the 0.8th to the 99.2th: extreme slices are not kept
_CALIBRATED = 16  # timesteps
_BISECTIONS = 48  # halve a range of about 30 to 1e-13


@dataclass(frozen=True)
class Prior:
    """The distribution of clean slices in [-1, 1], as far as a start needs it.

    Attributes:
        mean: float32 [S, S].
        directions: orthonormal, of largest variance first, float32 [K, S, S].
        percentiles: of the training slices' projections, around 0 and of their variance, float32 [P, K].
        trust: of a network's clean slices, from 0 to about 1, at `calibrated_timesteps`, float32 [C]; zeros where it
            has not been measured.
    """

    mean: Tensor
    directions: Tensor
    percentiles: Tensor
    trust: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: torch.device | str) -> "Prior":
        return Prior(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def noisy(self, noise: Tensor, signal: float, noise_level: float) -> Tensor:
        """Slices x_t on the paths that end in `noise` at the last timestep.

        Args:
            noise: unit normal, float32 [B, 1, S, S].
            signal, noise_level: sqrt(abar_t) and sqrt(1 - abar_t); the latter above 0.

        Returns:
            float32 [B, 1, S, S].
        """
        z, directions = noise.flatten(1).double(), self.directions.flatten(1).double()
        along = z @ directions.T
        moved = _inverse_cdf(torch.special.ndtr(along), signal * self.percentiles.double(), noise_level)
        x = signal * self.mean.flatten().double() + noise_level * z + (moved - noise_level * along) @ directions
        return x.reshape(noise.shape).to(noise.dtype)

    def expected_x_0(self, x_t: Tensor, signal: float, noise_level: float) -> Tensor:
        """Least-squares estimate of the clean slices in x_t [B, 1, S, S], of the same shape: the Gaussian's mean given
        x_t, with no variance but along the directions."""
        mean, directions = self.mean.flatten().to(x_t.dtype), self.directions.flatten(1).to(x_t.dtype)
        variances = self.percentiles.var(0, correction=0).to(x_t.dtype)
        along = (x_t.flatten(1) - signal * mean) @ directions.T
        shrunk = along * (signal * variances / (signal**2 * variances + noise_level**2))
        return (mean + shrunk @ directions).reshape(x_t.shape)

    def trusted_until(self, num_train_timesteps: int) -> int:
        """The last timestep up to which the network is trusted to TRUSTED or more: above it the prior knows as much."""
        below = np.flatnonzero(self._trust_of_all(num_train_timesteps) < TRUSTED)
        return max(int(below[0]) - 1, 0) if len(below) else num_train_timesteps - 1

    def trust_at(self, timestep: int, num_train_timesteps: int) -> float:
        """`trust` at any timestep."""
        return float(self._trust_of_all(num_train_timesteps)[timestep])

    def _trust_of_all(self, num_train_timesteps: int) -> np.ndarray:
        """Linear between the calibrated timesteps."""
        knots = calibrated_timesteps(num_train_timesteps)
        return np.interp(np.arange(num_train_timesteps), knots, self.trust.cpu().numpy())


def num_directions(num_slices: int) -> int:
    """How many directions so many training slices allow; 0: too few slices for a prior."""
    return min(NUM_DIRECTIONS, num_slices // SLICES_PER_DIRECTION)


def fit_prior(images: Tensor, directions: int | None = None, *, gamma: float = 1) -> Prior:
    """The prior of training slices.

    Args:
        images: uint8 [N, S, S].
        directions: how many; default: `num_directions` of N.
        gamma: of the model's intensities, see `intensity`.

    Raises:
        ValueError: too few slices.
    """
    wanted = num_directions(len(images)) if directions is None else directions
    if not 1 <= wanted < len(images):
        raise ValueError(f"a prior needs {SLICES_PER_DIRECTION} or more slices, got {len(images)}")
    generator = torch.Generator().manual_seed(0)
    flat = from_uint8(images, gamma).float().flatten(1)
    mean = flat.mean(0)
    centred = flat - mean
    basis = _largest_directions(centred, wanted, generator)
    along = (centred @ basis).double()
    levels = (torch.arange(NUM_PERCENTILES, dtype=torch.float64) + 0.5) / NUM_PERCENTILES
    percentiles = torch.quantile(along, levels, dim=0)
    percentiles -= percentiles.mean(0)
    # the tails are cut off: what is left is stretched to the variance of all
    stretch = (along.var(0) / percentiles.var(0, correction=0).clamp(min=1e-12)).sqrt()
    size = images.shape[-1]
    return Prior(
        mean.reshape(size, size),
        basis.T.reshape(wanted, size, size).contiguous(),
        (percentiles * stretch).float(),
        torch.zeros(_CALIBRATED, dtype=torch.float32),
    )


def empty_prior(image_size: int, directions: int) -> Prior:
    """A prior's shapes and types, without content."""
    with torch.device("meta"):
        return Prior(
            torch.empty(image_size, image_size, dtype=torch.float32),
            torch.empty(directions, image_size, image_size, dtype=torch.float32),
            torch.empty(NUM_PERCENTILES, directions, dtype=torch.float32),
            torch.empty(_CALIBRATED, dtype=torch.float32),
        )


def calibrated_timesteps(num_train_timesteps: int) -> Tensor:
    """Rising timesteps at which `trust` is measured, long [C], from 0 to the last one."""
    return torch.linspace(0, num_train_timesteps - 1, _CALIBRATED).round().long()


def calibrate(prior: Prior, model: nn.Module, process: DiffusionProcess, images: Tensor, *, seed: int = 0) -> Prior:
    """The prior with a network's `trust`: the factor k(t) of x_0 = e + k(t) (x_0' - e) that is best by least squares.

    x_0' is the network's clean slice, clamped to [-1, 1]; e is `expected_x_0`.

    Args:
        prior: on the device of the model.
        model: in eval mode.
        images: slices that it was not trained on, uint8 [N, S, S].
        seed: of their noise.
    """
    clean = from_uint8(images, process.config.intensity_gamma)[:, None].to(prior.mean.device)
    generator = torch.Generator().manual_seed(seed)
    trust = []
    with torch.inference_mode():
        for timestep in calibrated_timesteps(process.config.num_train_timesteps).tolist():
            timesteps = torch.full((len(clean),), timestep, device=clean.device)
            x_t = process.q_sample(clean, timesteps, torch.randn(clean.shape, generator=generator).to(clean.device))
            prediction = model(process.network_input(x_t, timesteps), timesteps).to(x_t.dtype)
            predicted = process.predict_x_0(x_t, timesteps, prediction).clamp(-1, 1)
            expected = prior.expected_x_0(x_t, float(process.signal[timestep]), float(process.noise[timestep]))
            beyond, wanted = (predicted - expected).double(), (clean - expected).double()
            trust.append((beyond * wanted).sum() / beyond.square().sum().clamp(min=1e-12))
    return replace(prior, trust=torch.stack(trust).clamp(0, 1).float())


def _largest_directions(centred: Tensor, wanted: int, generator: torch.Generator) -> Tensor:
    """Orthonormal directions of largest variance [D, K], of slices [N, D] around their mean.

    Subspace iteration (Halko et al. 2011, arXiv:0909.4061, algorithm 4.4): the covariance of 128x128 slices would take
    a gibibyte. Their signs are such that the largest element is positive.
    """
    width = min(wanted + 16, *centred.shape)
    sketch = torch.randn(centred.shape[1], width, generator=generator, dtype=centred.dtype)
    for _ in range(8):
        sketch = torch.linalg.qr(centred.T @ (centred @ sketch)).Q
    _, vectors = torch.linalg.eigh((centred @ sketch).double().T @ (centred @ sketch).double())
    basis = sketch @ vectors.flip(1)[:, :wanted].float()
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
    return torch.where(largest < 0, -basis, basis)


def _inverse_cdf(probabilities: Tensor, centres: Tensor, width: float) -> Tensor:
    """Where equal mixtures of normals reach given probabilities, by bisection.

    Args:
        probabilities: [B, K].
        centres: of each mixture's normals, [P, K].
        width: their standard deviation.
    """
    tiny = 1e-12
    wanted = probabilities.clamp(tiny, 1 - tiny)
    low = (centres.min(0).values - 8 * width).expand_as(wanted)
    high = (centres.max(0).values + 8 * width).expand_as(wanted)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        below = torch.special.ndtr((middle[:, None] - centres) / width).mean(1) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
