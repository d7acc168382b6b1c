"""What is known of slices without a network: a mixture of Gaussians in the few directions of largest variance.

At high noise a slice is its mean, its brightness, its plane and a few large shapes. Samplers may draw those from the
training slices' own distribution, noise them to a timestep far below T - 1, and begin there, without a network call
(Everaert et al. 2024, arXiv:2309.15842, do so with one Gaussian; Wang & Vastola 2023, arXiv:2311.10892, say why little
is lost). One Gaussian draws too few bright slices and mixes the planes; a mixture keeps both:

    x_0 = mean + D^T (deviations * (centre_m + L_m a)),   x_t = s x_0 + n z

with signal s, noise n, orthonormal directions D, component m with its probability, unit noise a and z. The
least-squares estimate of the clean slice under one Gaussian also corrects a network where noise hides the slice:
`trust` says how far the network's own estimate is to be believed at each timestep.
"""

import warnings
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn

from lwddpm.diffusion.intensity import from_uint8
from lwddpm.diffusion.process import DiffusionProcess

NUM_DIRECTIONS = 16
NUM_COMPONENTS = 8
# With so many a training slice cannot be told from others by what the prior says of it: docs/sampling.md.
SLICES_PER_DIRECTION = 32
SLICES_PER_COMPONENT = 256
MOST_CLASSES = 32  # that have components of their own
_FEWEST_IN_A_COMPONENT = 64
TRUSTED = 0.87  # where samplers hand over from the prior to the network; measured, see docs/sampling.md
_CALIBRATED = 16  # timesteps
_ADDED_VARIANCE = 0.01  # of each component, relative to that of all slices: none collapses onto a few of them


@dataclass(frozen=True)
class Prior:
    """The distribution of clean slices in [-1, 1], as far as a start needs it.

    Attributes:
        mean: float32 [S, S].
        directions: orthonormal, of largest variance first, float32 [K, S, S].
        deviations: standard deviations of the training slices along them, float32 [K].
        weights: probabilities of the components, float32 [M].
        centres: of the components, in units of `deviations`, float32 [M, K].
        factors: of their covariances L L^T, lower triangular, in the same units, float32 [M, K, K].
        trust: of a network's clean slices, from 0 to about 1, at `calibrated_timesteps`, float32 [C]; zeros where it
            has not been measured.
        classes: of a conditional model, the class that each component was fitted to, by its position among the names,
            long [M]; -1: several small ones.
    """

    mean: Tensor
    directions: Tensor
    deviations: Tensor
    weights: Tensor
    centres: Tensor
    factors: Tensor
    trust: Tensor
    classes: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def to(self, device: torch.device | str) -> "Prior":
        return Prior(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    @property
    def num_draws(self) -> int:
        """Standard normal numbers that one slice takes: one for its component, one for each direction."""
        return len(self.directions) + 1

    def clean(self, draws: Tensor, asked: Tensor | None = None) -> Tensor:
        """Slices x_0 of the distribution, float64 [B, 1, S, S].

        Args:
            draws: unit normal, [B, `num_draws`].
            asked: the class of each slice, float [B], NaN where none is asked for; None: none.
        """
        draws = draws.double()
        if self.classes is None or asked is None:
            component = _chosen(self.weights.double(), draws[:, 0])
        else:
            weights = self._weights_of(asked)
            component = torch.cat([_chosen(*own) for own in zip(weights, draws[:, :1], strict=True)])
        shapes = torch.einsum("bjk,bk->bj", self.factors[component].double(), draws[:, 1:])
        along = (self.centres[component] + shapes) * self.deviations
        x_0 = self.mean.flatten() + along @ self.directions.flatten(1).double()
        return x_0.reshape(-1, 1, *self.mean.shape)

    def given(
        self, seen: Tensor, known: Tensor, noise_level: float, draws: Tensor, asked: Tensor | None = None
    ) -> Tensor:
        """Slices x_0 of the distribution given some of their pixels under noise, float64 [B, 1, S, S].

        The components' probabilities, centres and covariances given those pixels, in closed form: with b = centre + L a
        in units of the deviations, the log-likelihood of the pixels is h^T b - b^T Q b / 2 and a constant.

        Args:
            seen: x_0 + noise_level z, [B, 1, S, S]; unknown pixels may have any value.
            known: which are known, bool of the same shape.
            noise_level: standard deviation of the noise, above 0; endless: as `clean`.
            draws, asked: as of `clean`.
        """
        draws, weights = draws.double(), known.flatten(1).double()
        scaled = self.deviations.double()[:, None] * self.directions.flatten(1).double()  # [K, D]
        missed = (seen.flatten(1).double() - self.mean.flatten().double()) * weights
        h = missed @ scaled.T / noise_level**2
        q = torch.einsum("kd,bd,ld->bkl", scaled, weights, scaled) / noise_level**2
        factors, centres = self.factors.double(), self.centres.double()
        # a of component m has mean m_a and precision P given the pixels
        identity = torch.eye(len(scaled), dtype=torch.float64, device=draws.device)
        precision = identity + torch.einsum("mji,bjk,mkl->bmil", factors, q, factors)
        pull = torch.einsum("mji,bmj->bmi", factors, h[:, None] - torch.einsum("bjk,mk->bmj", q, centres))
        root = torch.linalg.cholesky(precision)
        mean = torch.cholesky_solve(pull[..., None], root)[..., 0]
        likelihood = (
            h @ centres.T
            - torch.einsum("mj,bjk,mk->bm", centres, q, centres) / 2
            + (pull * mean).sum(-1) / 2
            - root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        )
        ends = (self._weights_of(asked).log() + likelihood).softmax(1).cumsum(1)
        place = torch.special.ndtr(draws[:, :1]) * ends[:, -1:]
        component = torch.searchsorted(ends, place)[:, 0].clamp(max=len(centres) - 1)
        image = torch.arange(len(draws), device=draws.device)
        spread = torch.linalg.solve_triangular(root[image, component].mT, draws[:, 1:, None], upper=True)[..., 0]
        shapes = torch.einsum("bjk,bk->bj", factors[component], mean[image, component] + spread)
        x_0 = self.mean.flatten() + (centres[component] + shapes) @ scaled
        return x_0.reshape(-1, 1, *self.mean.shape)

    def _weights_of(self, asked: Tensor | None) -> Tensor:
        """Weights of the components that each slice may come from, not summing to 1, float64 [M] or [B, M]."""
        if self.classes is None or asked is None:
            return self.weights.double()
        fits = self.classes == asked.nan_to_num(-2).long()[:, None]
        fits |= ~fits.any(1, keepdim=True)  # no class is asked for, or one too small to have a component
        return self.weights.double() * fits

    def noisy(
        self, draws: Tensor, noise: Tensor, signal: float, noise_level: float, asked: Tensor | None = None
    ) -> Tensor:
        """Noised slices x_t of the distribution, of noise's shape and type.

        Args:
            draws: unit normal, [B, `num_draws`].
            noise: unit normal, float32 [B, 1, S, S].
            signal, noise_level: sqrt(abar_t) and sqrt(1 - abar_t).
            asked: as of `clean`.
        """
        return (signal * self.clean(draws, asked) + noise_level * noise).to(noise.dtype)

    def expected_x_0(self, x_t: Tensor, signal: float, noise_level: float) -> Tensor:
        """Least-squares estimate of the clean slices in x_t [B, 1, S, S], of the same shape: the Gaussian's mean given
        x_t, with no variance but along the directions."""
        mean, directions = self.mean.flatten().to(x_t.dtype), self.directions.flatten(1).to(x_t.dtype)
        variances = self.deviations.square().to(x_t.dtype)
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


def num_components(num_slices: int) -> int:
    """How many components so many training slices allow, at least 1."""
    return max(min(NUM_COMPONENTS, num_slices // SLICES_PER_COMPONENT), 1)


def fit_prior(
    images: Tensor,
    directions: int | None = None,
    *,
    components: int | None = None,
    gamma: float = 1,
    classes: np.ndarray | None = None,
) -> Prior:
    """The prior of training slices.

    Args:
        images: uint8 [N, S, S].
        directions: how many; default: `num_directions` of N.
        components: how many at most; default: `num_components` of N.
        gamma: of the model's intensities, see `intensity`.
        classes: of the slices, float [N], NaN where not known: each class has components of its own then, as many as
            its slices allow, in the directions of all. None: slices have no classes.

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
    deviations = along.std(0).clamp(min=1e-6)
    points = (along / deviations).numpy()
    of_class = {-1: np.arange(len(points))} if classes is None else _large_classes(classes)
    mixtures = [
        _mixture(points[rows], num_components(len(rows)) if components is None else components)
        for rows in of_class.values()
    ]
    weights = np.concatenate(
        [weights * (len(rows) / len(points)) for (weights, _, _), rows in zip(mixtures, of_class.values(), strict=True)]
    )
    centres, covariances = (np.concatenate([mixture[part] for mixture in mixtures]) for part in (1, 2))
    fitted_to = [code for code, mixture in zip(of_class, mixtures, strict=True) for _ in mixture[0]]
    size = images.shape[-1]
    return Prior(
        mean.reshape(size, size),
        basis.T.reshape(wanted, size, size).contiguous(),
        deviations.float(),
        torch.from_numpy(weights).float(),
        torch.from_numpy(centres).float(),
        torch.linalg.cholesky(torch.from_numpy(covariances)).float(),
        torch.zeros(_CALIBRATED, dtype=torch.float32),
        None if classes is None else torch.tensor(fitted_to),
    )


def empty_prior(image_size: int, directions: int, components: int, *, by_class: bool = False) -> Prior:
    """A prior's shapes and types, without content."""
    with torch.device("meta"):
        return Prior(
            torch.empty(image_size, image_size, dtype=torch.float32),
            torch.empty(directions, image_size, image_size, dtype=torch.float32),
            torch.empty(directions, dtype=torch.float32),
            torch.empty(components, dtype=torch.float32),
            torch.empty(components, directions, dtype=torch.float32),
            torch.empty(components, directions, directions, dtype=torch.float32),
            torch.empty(_CALIBRATED, dtype=torch.float32),
            torch.empty(components, dtype=torch.long) if by_class else None,
        )


def calibrated_timesteps(num_train_timesteps: int) -> Tensor:
    """Rising timesteps at which `trust` is measured, long [C], from 0 to the last one."""
    return torch.linspace(0, num_train_timesteps - 1, _CALIBRATED).round().long()


def calibrate(
    prior: Prior,
    model: nn.Module,
    process: DiffusionProcess,
    images: Tensor,
    *,
    seed: int = 0,
    given: Tensor | None = None,
) -> Prior:
    """The prior with a network's `trust`: the factor k(t) of x_0 = e + k(t) (x_0' - e) that is best by least squares.

    x_0' is the network's clean slice, clamped to [-1, 1]; e is `expected_x_0`.

    Args:
        prior: on the device of the model.
        model: in eval mode.
        images: slices that it was not trained on, uint8 [N, S, S].
        seed: of their noise.
        given: what a conditional model is told of them, float32 [N, C].
    """
    told = {} if given is None else {"given": given.to(prior.mean.device)}
    clean = from_uint8(images, process.config.intensity_gamma)[:, None].to(prior.mean.device)
    generator = torch.Generator().manual_seed(seed)
    trust = []
    with torch.inference_mode():
        for timestep in calibrated_timesteps(process.config.num_train_timesteps).tolist():
            timesteps = torch.full((len(clean),), timestep, device=clean.device)
            x_t = process.q_sample(clean, timesteps, torch.randn(clean.shape, generator=generator).to(clean.device))
            prediction = model(process.network_input(x_t, timesteps), timesteps, **told).to(x_t.dtype)
            predicted = process.predict_x_0(x_t, timesteps, prediction).clamp(-1, 1)
            expected = prior.expected_x_0(x_t, float(process.signal[timestep]), float(process.noise[timestep]))
            beyond, wanted = (predicted - expected).double(), (clean - expected).double()
            trust.append((beyond * wanted).sum() / beyond.square().sum().clamp(min=1e-12))
    return replace(prior, trust=torch.stack(trust).clamp(0, 1).float())


def _chosen(weights: Tensor, draws: Tensor) -> Tensor:
    """Components, long [B], of weights [M] by unit normal draws [B]."""
    ends = weights.cumsum(0)
    return torch.searchsorted(ends, torch.special.ndtr(draws) * ends[-1]).clamp(max=len(ends) - 1)


def _large_classes(classes: np.ndarray) -> dict[int, np.ndarray]:
    """Rows of each class that is large enough for a component of its own; of the others together, as -1, if they are.

    Where even these are too few for a component, they have none.
    """
    codes = np.where(np.isnan(classes), -1, classes).astype(int)
    names, counts = np.unique(codes, return_counts=True)
    large = set(names[(counts >= _FEWEST_IN_A_COMPONENT) & (names >= 0)][:MOST_CLASSES].tolist())
    found = {code: np.flatnonzero(codes == code) for code in sorted(large)}
    others = np.flatnonzero(~np.isin(codes, sorted(large)))
    if len(others) >= _FEWEST_IN_A_COMPONENT or not found:
        found[-1] = others
    return found


def _mixture(points: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [M], centres [M, K] and covariances [M, K, K] of the mixture that is fitted to points [N, K].

    With fewer components than asked for, down to one, until each stands for 64 points or more.
    """
    # here: scikit-learn takes a second to import, and drawing does not need it
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    while True:
        mixture = GaussianMixture(components, reg_covar=_ADDED_VARIANCE, max_iter=200, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a fit that could still improve is a good start too
            mixture.fit(points)
        if components == 1 or mixture.weights_.min() * len(points) >= _FEWEST_IN_A_COMPONENT:
            return mixture.weights_, mixture.means_, mixture.covariances_
        components -= 1


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
