"""Section `evaluation`: what is measured of slices, and how these are drawn."""

from typing import Literal, get_args

from pydantic import Field

from lwddpm.config.sampling import SamplingConfig
from lwddpm.config.section import PositiveInt, SeveralInt

Metric = Literal[
    "fid",
    "fd_lite0",
    "fd_lite2",
    "fid_infinity",
    "fd_lite0_infinity",
    "kid",
    "kd_lite0",
    "precision_lite0",
    "recall_lite0",
    "density_lite0",
    "coverage_lite0",
    "out_of_band",
    "ssim_nearest",
    "ssim_pairs",
    "ssim_reconstruction",
]


class EvaluationConfig(SamplingConfig):
    """What is measured of a model's slices, and on how many; docs/metrics.md says what each number means."""

    metrics: tuple[Metric, ...] = Field(
        tuple(name for name in get_args(Metric) if name != "fd_lite2"),
        description="which are computed; default: all but fd_lite2, a second opinion that takes twice as long",
    )
    num_samples: SeveralInt = Field(1000, description="slices drawn; lowered to the held-out slices at hand")
    num_reference: SeveralInt | None = Field(
        None, description="training slices that samples are compared with; default: all"
    )
    inception_weights: str | None = Field(
        None, description="file with the weights of FID's Inception network; default: the cache, else a download"
    )
    reconstruction_timestep: PositiveInt = Field(
        50, description="ssim_reconstruction: held-out slices are noised to this timestep, then denoised"
    )
