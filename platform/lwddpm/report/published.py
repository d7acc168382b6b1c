"""What the paper prints: Peng, Chen, Saruta, Terata 2024, Table 1, and what it claims.

The paper states no batch size, no number of samples and no protocol for FID and SSIM, so that its quality metrics can
be set beside others but not be checked to the digit.
"""

from typing import Literal, NamedTuple

SOURCE = "Peng, Chen, Saruta, Terata 2024, Table 1"
IMAGE_SIZE, EPOCHS = 128, 250
PREDICTION_TYPE, LOSS, BETA_SCHEDULE = "epsilon", "smooth_l1", "cosine"
UNSTATED = "the paper does not state its number of samples"

NAMES = {
    "gan": "GAN",
    "wgan": "WGAN",
    "lsgan": "LSGAN",
    "ddpm": "DDPM",
    "ddim": "DDIM",
    "lw_ddpm": "LW-DDPM",
    "recipe": "LW-DDPM, recipe",  # the platform's settings
    "gaussian": "Gaussian, no network",  # this platform's baseline
}
STARTS = {"gaussian": "the prior", "noise": "noise"}  # of sampling, beside a system's own
VARIANTS = {
    "smooth_l1": "smooth L1",
    "l1": "L1",
    "l2": "L2",
    "se": "Squeeze-Excitation",
    "linear": "linear",
    "none": "none",
    "v_prediction": "v",
    "edm": "EDM",
}
GANS = ("gan", "wgan", "lsgan")


class Published(NamedTuple):
    """A row of Table 1; None is a dash there.

    Attributes:
        parameters: in millions, as rounded in print.
        timesteps, inference_steps: of training and of sampling.
    """

    timesteps: int | None
    inference_steps: int | None
    fid: float
    ssim: float
    parameters: float | None


TABLE_1 = {
    "gan": Published(None, None, 95.65, 0.839, None),
    "wgan": Published(None, None, 91.27, 0.864, None),
    "lsgan": Published(None, None, 103.86, 0.823, None),
    "ddpm": Published(1000, 1000, 72.24, 0.896, 13.48),
    "ddim": Published(1000, 50, 75.43, 0.889, 13.48),
    "lw_ddpm": Published(1000, 1000, 70.02, 0.913, 13.34),
}

SYSTEMS = (*TABLE_1, "recipe")  # in the order of the report

Quantity = Literal["fid", "ssim", "parameters", "seconds"]


class Claim(NamedTuple):
    """One comparison: the first has the better value of a quantity than each of the others.

    Attributes:
        group: where the rows are: `system`, or the name of an ablation, whose rows are (system, variant).
    """

    quantity: Quantity
    better: str
    worse: tuple[str, ...]
    group: str = "system"
    system: str | None = None


class Statement(NamedTuple):
    """Something that the paper says, and the comparisons that have to come out for it to be so."""

    key: str
    text: str
    source: str
    claims: tuple[Claim, ...]


def _all_but(system: str) -> tuple[str, ...]:
    return tuple(other for other in TABLE_1 if other != system)


STATEMENTS = (
    Statement(
        "best_fid",
        "LW-DDPM has the lowest FID of all six systems",
        "Table 1",
        (Claim("fid", "lw_ddpm", _all_but("lw_ddpm")),),
    ),
    Statement(
        "best_ssim",
        "LW-DDPM has the highest SSIM of all six systems",
        "Table 1",
        (Claim("ssim", "lw_ddpm", _all_but("lw_ddpm")),),
    ),
    Statement(
        "lighter",
        "LW-DDPM has fewer parameters than DDPM",
        "Table 1",
        (Claim("parameters", "lw_ddpm", ("ddpm",)),),
    ),
    Statement(
        "better_than_ddpm",
        "LW-DDPM has a lower FID than DDPM",
        "Table 1",
        (Claim("fid", "lw_ddpm", ("ddpm",)),),
    ),
    Statement(
        "diffusion_beats_gans",
        "Each diffusion model has a lower FID than each GAN",
        "Table 1",
        tuple(Claim("fid", system, GANS) for system in ("ddpm", "ddim", "lw_ddpm")),
    ),
    Statement(
        "ddim_price",
        "Sampling the DDPM in 50 DDIM steps raises its FID",
        "Table 1",
        (Claim("fid", "ddpm", ("ddim",)),),
    ),
    Statement(
        "ddim_faster",
        "DDIM samples faster than DDPM",
        "Table 1: 50 steps against 1000",
        (Claim("seconds", "ddim", ("ddpm",)),),
    ),
    Statement(
        "wgan_best_gan",
        "WGAN has the lowest FID of the three GANs",
        "Table 1",
        (Claim("fid", "wgan", ("gan", "lsgan")),),
    ),
    Statement(
        "smooth_l1",
        "Smooth L1 is a better loss than L1",
        "ablation of the loss",
        (Claim("fid", "smooth_l1", ("l1",), "loss", "lw_ddpm"),),
    ),
    Statement(
        "squeeze_excitation",
        "Squeeze-Excitation is better than linear attention",
        "ablation of the attention",
        (Claim("fid", "se", ("linear",), "attention", "lw_ddpm"),),
    ),
    Statement(
        "cosine",
        "The cosine schedule is better than the linear one, for DDPM and for LW-DDPM",
        "Figure 9",
        tuple(Claim("fid", "cosine", ("linear",), "schedule", system) for system in ("ddpm", "lw_ddpm")),
    ),
)
