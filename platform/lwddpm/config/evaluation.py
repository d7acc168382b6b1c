"""Sections `sampling` and `evaluation`: how slices are drawn and measured."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from lwddpm import families
from lwddpm.config.model import DiffusionConfig
from lwddpm.config.section import Fraction, PositiveInt, Section, Seed

Sampler = Literal["ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++", "generator"]  # the last: GANs, one pass
Metric = Literal["fid", "fd_lite0", "ssim_nearest", "ssim_pairs", "ssim_reconstruction"]
ONE_PASS = {"sampler": families.SAMPLER, "num_inference_steps": 1}


class SamplingConfig(Section):
    sampler: Sampler = "ddim"
    num_inference_steps: PositiveInt = 50
    eta: Fraction = Field(0.0, description="DDIM only: 0 is deterministic, 1 is as noisy as DDPM")
    batch_size: PositiveInt = 64
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if value is not None}
        return values


class EvaluationConfig(SamplingConfig):
    metrics: tuple[Metric, ...] = ("fid", "fd_lite0", "ssim_nearest", "ssim_pairs", "ssim_reconstruction")
    num_samples: Annotated[int, Field(ge=2)] = Field(1000, description="lowered to the held-out slices at hand")
    num_reference: Annotated[int, Field(ge=2)] | None = Field(None, description="training slices; default: all")
    inception_weights: str | None = Field(None, description="file; default: the cache, else a download")
    reconstruction_timestep: Annotated[int, Field(ge=1)] = 50


def check_steps(sampling: SamplingConfig, diffusion: DiffusionConfig, section: str) -> None:
    """Refuse more sampling steps, or a later reconstruction, than the model was trained with.

    Raises:
        ValueError: names the setting, both numbers and the limit.
    """
    steps, limit = sampling.num_inference_steps, diffusion.num_train_timesteps
    if sampling.sampler == families.SAMPLER:
        raise ValueError(f"{section}.sampler: must be one of a diffusion model's, got {sampling.sampler}; try ddim")
    if steps > limit:
        raise ValueError(
            f"{section}.num_inference_steps: must be at most diffusion.num_train_timesteps = {limit}, got {steps}"
        )
    if isinstance(sampling, EvaluationConfig) and sampling.reconstruction_timestep >= limit:
        raise ValueError(
            f"{section}.reconstruction_timestep: must be below diffusion.num_train_timesteps = {limit}, "
            f"got {sampling.reconstruction_timestep}"
        )


S = TypeVar("S", bound=SamplingConfig)


def one_pass(sampling: S, section: str) -> S:
    """How a GAN's slices are drawn; refuses settings that were given and mean nothing to it.

    Raises:
        ValueError: names them.
    """
    fields = type(sampling).model_fields  # in their order: a set's differs from process to process
    given = {name: getattr(sampling, name) for name in fields if name in sampling.model_fields_set}
    wrong = families.not_for_one_pass(given)
    if wrong:
        raise ValueError(
            f"{section}.{wrong[0]}: the model is a GAN and draws in one pass, got {given[wrong[0]]}; leave out "
            f"{', '.join(wrong)}, or set to null"
        )
    return sampling.model_copy(update=ONE_PASS)
