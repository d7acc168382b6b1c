"""The forward process q(x_t | x_0), its posterior, and the training losses.

Timesteps count from 0 (least noise) to num_train_timesteps - 1, as in diffusers. With abar = alphas_cumprod:
x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise (Ho et al. 2020, arXiv:2006.11239, eq. 4).

With a = sqrt(abar_t) and n = sqrt(1 - abar_t), what a network is given and what it should predict are, by
`prediction_type`:

    epsilon        x_t              noise                             Ho et al. 2020, eq. 14
    v_prediction   x_t              a noise - n x_0                   Salimans & Ho 2022 (arXiv:2202.00512), section 4
    edm            x_t / N          (x_0 - a d^2 x_t / N^2) N / (n d) Karras et al. 2022 (arXiv:2206.00364), table 1
    flow           x_t / (a + n)    noise - x_0                       Lipman et al. 2023 (arXiv:2210.02747), section 4.1

edm: N^2 = a^2 d^2 + n^2, where d is `sigma_data`. It is EDM's network F, on this chain instead of x_0 + sigma noise:
with sigma = n / a, slices are x_t / a there, c_in x = x_t / N, c_skip x = a d^2 x_t / N^2 and c_out = n d / N. EDM
weighs the squared error of x_0 by 1 / c_out^2, so that of F has weight 1. With d = 1 its target is -v.

flow: the linear path (1 - s) x_0 + s noise at s = n / (a + n) is x_t / (a + n), and its velocity is the target.

All targets are q noise + r x_0 with numbers q and r of the timestep, from which, with x_t, follow

    x_0 = (q x_t - n p) / (a q - n r),    noise = (a p - r x_t) / (a q - n r),    p: the prediction.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lwddpm.config import DiffusionConfig

MAX_BETA = 0.999  # keeps abar_T above zero: the epsilon target needs a trace of signal


def noise_schedule(name: str, num_train_timesteps: int) -> Tensor:
    """The variances beta_t of a schedule, float64 [T].

    linear: 1e-4 to 0.02 at T = 1000 (Ho et al. 2020), scaled by 1000 / T so that any T ends at the same noise.
    cosine: Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. 17; diffusers' `squaredcos_cap_v2`.
    sigmoid: Jabri et al. 2022 (arXiv:2212.11972), start -3, end 3, tau 1; diffusers' `sigmoid` is a different one.

    Raises:
        ValueError: unknown name.
    """
    edges = torch.linspace(0, 1, num_train_timesteps + 1, dtype=torch.float64)
    match name:
        case "linear":
            scale = 1000 / num_train_timesteps
            betas = torch.linspace(1e-4, 0.02, num_train_timesteps, dtype=torch.float64) * scale
            return betas.clamp(max=MAX_BETA)
        case "cosine":
            abar = torch.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
        case "sigmoid":
            curve = torch.sigmoid(-3 + 6 * edges)
            abar = (curve[-1] - curve) / (curve[-1] - curve[0])
        case _:
            raise ValueError(f"beta_schedule must be linear, cosine or sigmoid, got {name!r}")
    return (1 - abar[1:] / abar[:-1]).clamp(max=MAX_BETA)


def timestep_cdf(config: DiffusionConfig, mean: float, std: float) -> Tensor:
    """Cumulative probabilities of timesteps whose ln sigma is normal, float64 [T], rising to 1.

    Karras et al. 2022 (arXiv:2206.00364), table 1, on a chain: with sigma = sqrt(1 - abar) / sqrt(abar), each timestep
    has the probability of the levels that are nearest to its own. The times s = sigma / (1 + sigma) of the linear path
    are then logit-normal with the same mean and standard deviation (Esser et al. 2024, arXiv:2403.03206, section 3.1),
    since logit(s) = ln sigma.
    """
    abar = (1 - noise_schedule(config.beta_schedule, config.num_train_timesteps)).cumprod(0)
    levels = ((1 - abar) / abar).log() / 2
    between = (levels[1:] + levels[:-1]) / 2
    return torch.cat([torch.special.ndtr((between - mean) / std), torch.ones(1, dtype=torch.float64)])


class DiffusionProcess(nn.Module):
    """Noising, targets and losses of one schedule. Has no parameters; its float32 buffers are computed in float64.

    Attributes:
        betas, alphas_cumprod: float32 [T].
        signal, noise: sqrt(abar) and sqrt(1 - abar), the factors of x_0 and of the noise in x_t; float32 [T].
        snrs: signal-to-noise ratios abar / (1 - abar), float32 [T].
        loss_weights: of each timestep's loss, float32 [T].
        input_scales: factors that x_t is given to the network with, float32 [T].
        of_noise, of_x_0: q and r, the factors of the noise and of x_0 in the network's target, float32 [T].
        determinants: a q - n r, float32 [T].
    """

    betas: Tensor
    alphas_cumprod: Tensor
    signal: Tensor
    noise: Tensor
    snrs: Tensor
    loss_weights: Tensor
    input_scales: Tensor
    of_noise: Tensor
    of_x_0: Tensor
    determinants: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        betas = noise_schedule(config.beta_schedule, config.num_train_timesteps)
        abar = (1 - betas).cumprod(0)
        snr, signal, noise = abar / (1 - abar), abar.sqrt(), (1 - abar).sqrt()
        of_noise, of_x_0, scales = _target(signal, noise, config)
        buffers = {
            "betas": betas,
            "alphas_cumprod": abar,
            "signal": signal,
            "noise": noise,
            "snrs": snr,
            "loss_weights": _loss_weights(snr, config),
            "input_scales": scales,
            "of_noise": of_noise,
            "of_x_0": of_x_0,
            "determinants": signal * of_noise - noise * of_x_0,
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.float(), persistent=False)

    def q_sample(self, x_0: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """Draw x_t given clean slices x_0 [B, 1, H, W] in [-1, 1], timesteps [B] and unit Gaussian noise."""
        return _per_image(self.signal[timesteps]) * x_0 + _per_image(self.noise[timesteps]) * noise

    def network_input(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """What the network is given of x_t, [B, 1, H, W]; of epsilon and v x_t itself."""
        if self.config.prediction_type in ("epsilon", "v_prediction"):
            return x_t
        return _per_image(self.input_scales[timesteps]) * x_t

    def target(self, x_0: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """What the network should predict, [B, 1, H, W]; see the module's table."""
        if self.config.prediction_type == "epsilon":
            return noise
        return _per_image(self.of_noise[timesteps]) * noise + _per_image(self.of_x_0[timesteps]) * x_0

    def losses(self, prediction: Tensor, x_0: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """The loss of each image, [B]: mean over its pixels, times the min-SNR weight if there is one."""
        loss = {"smooth_l1": F.smooth_l1_loss, "l1": F.l1_loss, "l2": F.mse_loss}[self.config.loss]
        errors = loss(prediction.to(x_0.dtype), self.target(x_0, timesteps, noise), reduction="none")
        return errors.mean((1, 2, 3)) * self.loss_weights[timesteps]

    def predict_x_0(self, x_t: Tensor, timesteps: Tensor, prediction: Tensor) -> Tensor:
        """The clean slices that a prediction implies, [B, 1, H, W].

        Not clamped: with epsilon they are far outside [-1, 1] at late timesteps.
        """
        from_x_t = _per_image(self.of_noise[timesteps]) * x_t
        return (from_x_t - _per_image(self.noise[timesteps]) * prediction) / _per_image(self.determinants[timesteps])

    def predict_noise(self, x_t: Tensor, timesteps: Tensor, prediction: Tensor) -> Tensor:
        """The noise in x_t that a prediction implies, [B, 1, H, W]; with epsilon the prediction itself."""
        if self.config.prediction_type == "epsilon":
            return prediction
        from_prediction = _per_image(self.signal[timesteps]) * prediction
        return (from_prediction - _per_image(self.of_x_0[timesteps]) * x_t) / _per_image(self.determinants[timesteps])

    def noise_in(self, x_t: Tensor, timesteps: Tensor, x_0: Tensor) -> Tensor:
        """The noise in x_t around clean slices x_0, [B, 1, H, W]: what `q_sample` made x_t of."""
        return (x_t - _per_image(self.signal[timesteps]) * x_0) / _per_image(self.noise[timesteps])

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio abar_t / (1 - abar_t) at timesteps [B], float32 [B]."""
        return self.snrs[timesteps]

    def posterior(self, x_t: Tensor, x_0: Tensor, timesteps: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(x_s | x_t, x_0) for any earlier step s < t.

        Strided form of Ho et al. 2020, eq. 7: s is the next *visited* step, equal to t - 1 only when none is skipped.

        Args:
            x_t: noisy slices, float [B, 1, H, W].
            x_0: clean slices, same shape.
            timesteps: t, long [B].
            earlier: s, long [B]; -1 is the clean slice itself (abar = 1).

        Returns:
            Mean [B, 1, H, W]; variance [B, 1, 1, 1], squared intensity.

        Raises:
            ValueError: some s is not before its t.
        """
        if (earlier >= timesteps).any():
            raise ValueError(f"s must be before t, got t = {timesteps.tolist()}, s = {earlier.tolist()}")
        clean = _per_image(earlier < 0)
        signal_t, noise_t, snr_t = (_per_image(value[timesteps]) for value in (self.signal, self.noise, self.snrs))
        signal_s, noise_s, snr_s = (_per_image(value[earlier]) for value in (self.signal, self.noise, self.snrs))
        signal_s, noise_s = torch.where(clean, 1, signal_s), torch.where(clean, 0, noise_s)
        # Written with SNRs (Kingma et al. 2021, arXiv:2107.00630, appendix A), since 1 - abar cancels in float32.
        remaining = torch.where(clean, 0, snr_t / snr_s)
        mean = signal_s * (1 - remaining) * x_0 + signal_t / signal_s * (noise_s / noise_t) ** 2 * x_t
        return mean, noise_s**2 * (1 - remaining)


def _target(signal: Tensor, noise: Tensor, config: DiffusionConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Factors of the noise and of x_0 in the target, and of x_t in the network's input, each [T]; see the module."""
    one, zero = torch.ones_like(signal), torch.zeros_like(signal)
    match config.prediction_type:
        case "epsilon":
            return one, zero, one
        case "v_prediction":
            return signal, -noise, one
        case "flow":
            return one, -one, 1 / (signal + noise)
        case "edm":
            data = config.sigma_data
            scale = (signal**2 * data**2 + noise**2).rsqrt()  # 1 / N
            # n / (N d) is (1 - a^2 d^2 / N^2) N / (n d), without its cancellation at late timesteps
            return -signal * data * scale, noise * scale / data, scale


def _loss_weights(snr: Tensor, config: DiffusionConfig) -> Tensor:
    """Min-SNR weights of Hang et al. 2023 (arXiv:2303.09556), section 3.4, or ones.

    Their min(SNR, gamma) is the weight of the squared error of x_0, which is that of the prediction divided by the
    values below.
    """
    if config.min_snr_gamma is None:
        return torch.ones_like(snr)
    clipped = snr.clamp(max=config.min_snr_gamma)
    match config.prediction_type:
        case "epsilon":
            return clipped / snr
        case "v_prediction":
            return clipped / (snr + 1)
        case "flow":
            return clipped / (snr.sqrt() + 1) ** 2
        case "edm":
            return clipped / (snr + config.sigma_data**-2)


def _per_image(coefficients: Tensor) -> Tensor:
    return coefficients[:, None, None, None]
