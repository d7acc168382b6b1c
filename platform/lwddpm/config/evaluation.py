"""Sections `sampling` and `evaluation`: how slices are drawn and measured."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field, field_validator, model_validator

from lwddpm import families
from lwddpm.conditions import Asked, Category, Like, Vocabulary
from lwddpm.config.model import DiffusionConfig
from lwddpm.config.rule import RuleBroken
from lwddpm.config.section import (
    Fraction,
    PositiveFloat,
    PositiveInt,
    Section,
    Seed,
    SeveralInt,
    is_auto,
    is_empty,
    is_false,
    is_natural,
    is_none,
    is_one,
)
from lwddpm.families import ONE_PASS, OnePass

DiffusionSampler = Literal["ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++", "unipc", "heun"]
Sampler = Literal[DiffusionSampler, OnePass]
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


# Noise levels sigma = sqrt(1 - abar) / sqrt(abar), from a lower one that is left out to an upper one that is in.
SigmaInterval = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0)]]


EVALUATED = "evaluated"  # the preset of a training's own evaluation: what a model is drawn with if nothing is said
NO_PRESET = "plain"  # asks for the defaults of the section
PresetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=40)]
AskedValue = str | float | None | Annotated[dict[str, PositiveInt], Field(min_length=1)]
GuidanceFrom = Literal["auto", "unconditional", "guide", "unconditional_guide"]


class SamplingConfig(Section):
    """How slices are drawn from a model. A null stands for the default, so that a key can be taken out of a file.

    Of a model that is there already, what is not given comes from its preset (`training.stored_presets`).
    """

    incidental = frozenset({"batch_size"})

    preset: PresetName | None = Field(
        None,
        exclude_if=is_none,
        description="named settings that the model carries, which single ones here override; default: evaluated, those "
        "of its training's evaluation, where it has them; plain: none, the defaults below",
    )
    sampler: Sampler = Field("ddim", description="of a diffusion model; 'generator', one pass, is every GAN's")
    num_inference_steps: PositiveInt = Field(
        50, description="denoising steps, at most diffusion.num_train_timesteps; 1 for GANs"
    )
    timestep_spacing: Literal["auto", "trailing", "karras"] = Field(
        "auto",
        exclude_if=is_auto,
        description="trailing: timesteps at equal distances; karras: noise levels that are denser where noise is low "
        "(rho 7), for heun always; auto: karras for heun, else trailing",
    )
    eta: Fraction = Field(0.0, description="DDIM only: 0 is deterministic, 1 is as noisy as DDPM")
    start: Literal["auto", "gaussian", "noise"] = Field(
        "auto",
        exclude_if=is_auto,
        description="gaussian: from the prior of a diffusion model, below the noise levels that need no network; "
        "auto: if it has one",
    )
    calibrate: bool = Field(
        False,
        exclude_if=is_false,
        description="correct the network by the prior where noise hides the slice: for epsilon without a start",
    )
    guidance: Annotated[float, Field(ge=1, le=100)] = Field(
        1.0,
        exclude_if=is_one,
        description="w of D_weak + w (D - D_weak): away from what guidance_from names, where each step calls a network "
        "twice; 1: none",
    )
    guidance_from: GuidanceFrom = Field(
        "auto",
        exclude_if=is_auto,
        description="what guidance leads away from: unconditional: the same network without its conditions "
        "(classifier-free guidance); guide: the model's guide with the same conditions (autoguidance); "
        "unconditional_guide: the guide without; auto: the guide if the model has one, else unconditional",
    )
    guidance_interval: SigmaInterval | None = Field(
        None,
        exclude_if=is_none,
        description="guide between these noise levels alone: sigma = sqrt(1 - abar) / sqrt(abar), above the first and "
        "up to the second; default: at all",
    )
    truncation: PositiveFloat | None = Field(
        None,
        exclude_if=is_none,
        description="GANs only: latents from the normal distribution cut off at so many standard deviations; less is "
        "more typical and less varied; default: not cut off",
    )
    conditions: dict[Annotated[str, Field(max_length=100)], AskedValue] = Field(
        {},
        exclude_if=is_empty,
        description="of a conditional model: what is drawn, by condition: a value for all slices, such as {label: "
        "no_tumor}, categories with their shares, such as {label: {no_tumor: 1, glioma_tumor: 3}}, or null to say "
        "nothing; what is not named follows from `like`",
    )
    like: Like = Field(
        "train",
        exclude_if=is_natural,
        description="of a conditional model: classes have the shares of the training slices, or (balanced) equal ones",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        exclude_if=is_auto,
        description="of a diffusion model's network; auto: bf16 where the device multiplies it fast; fp32: the same "
        "slices as before there was a choice",
    )
    batch_size: PositiveInt = Field(64, description="slices denoised at a time by a worker; does not change them")
    seed: Seed = Field(0, description="slice i depends on the seed and on i alone")

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if value is not None}
        return values

    @model_validator(mode="after")
    def _heun_takes_karras(self) -> "SamplingConfig":
        if self.sampler == "heun" and self.timestep_spacing == "trailing":
            rule = "must be karras for heun, whose steps are straight in sigma"
            raise RuleBroken("timestep_spacing", rule, "trailing", "leave it out, or choose another sampler")
        return self

    @property
    def on_karras_levels(self) -> bool:
        """What `auto` comes to."""
        return self.timestep_spacing == "karras" or self.sampler == "heun"

    @field_validator("guidance_interval")
    @classmethod
    def _interval_rises(cls, interval: SigmaInterval | None) -> SigmaInterval | None:
        if interval is not None and interval[0] >= interval[1]:
            raise RuleBroken("", "the first noise level must be below the second", interval, "such as [0.2, 2]")
        return interval


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


def check_steps(sampling: SamplingConfig, diffusion: DiffusionConfig, section: str) -> None:
    """Refuse more sampling steps, or a later reconstruction, than the model was trained with.

    Args:
        section: where the sampling settings stand in the job, such as `evaluation`.

    Raises:
        RuleBroken: names the setting, both numbers and the limit.
    """
    steps, limit = sampling.num_inference_steps, diffusion.num_train_timesteps
    if sampling.sampler == families.SAMPLER:
        raise RuleBroken(f"{section}.sampler", "must be one of a diffusion model's", sampling.sampler, "try ddim")
    if sampling.truncation is not None:
        rule = "is a GAN's, and a diffusion model has no latent to cut off"
        raise RuleBroken(f"{section}.truncation", rule, sampling.truncation, "leave it out; guidance does the like")
    if steps > limit:
        raise RuleBroken(
            f"{section}.num_inference_steps", f"must be at most diffusion.num_train_timesteps = {limit}", steps
        )
    if isinstance(sampling, EvaluationConfig) and sampling.reconstruction_timestep >= limit:
        raise RuleBroken(
            f"{section}.reconstruction_timestep",
            f"must be below diffusion.num_train_timesteps = {limit}",
            sampling.reconstruction_timestep,
        )


def check_guide(
    sampling: SamplingConfig, guide_epoch: float | None, section: str, dropout: float | None = None
) -> None:
    """Refuse guidance of a training whose model has nothing to lead away from.

    Args:
        guide_epoch: `training.guide_epoch`.
        section: where the sampling settings stand in the job.
        dropout: `training.condition_dropout`; None: the model has no conditions.

    Raises:
        RuleBroken: names the setting and what it takes.
    """
    check_no_preset(sampling, section)
    if sampling.guidance == 1:
        return
    away_from = leads_away_from(sampling, has_guide=guide_epoch is not None)
    if guide_epoch is None and ("guide" in away_from or (dropout is None and sampling.guidance_from == "auto")):
        raise RuleBroken(
            f"{section}.guidance",
            "takes a model with a guide, and training.guide_epoch is null",
            sampling.guidance,
            "set that to an epoch from the first third of the training, or leave guidance out",
        )
    if "unconditional" in away_from and not dropout:
        why = "the model has no conditions" if dropout is None else "training.condition_dropout is 0"
        raise RuleBroken(
            f"{section}.guidance",
            f"leads away from the network without its conditions, which it is to learn in training, and {why}",
            sampling.guidance,
            "set model.conditions and training.condition_dropout, or leave guidance out",
        )


def leads_away_from(
    sampling: SamplingConfig, *, has_guide: bool
) -> Literal["unconditional", "guide", "unconditional_guide"]:
    """What guidance leads away from; what `auto` comes to."""
    if sampling.guidance_from != "auto":
        return sampling.guidance_from
    return "guide" if has_guide else "unconditional"


def check_no_preset(sampling: SamplingConfig, section: str) -> None:
    """Refuse a preset where the model is yet to be made.

    Raises:
        RuleBroken: names the setting.
    """
    if sampling.preset is not None:
        rule = "is of a model that is there already, and this job makes one"
        raise RuleBroken(f"{section}.preset", rule, sampling.preset, "give the settings themselves")


SamplingT = TypeVar("SamplingT", bound=SamplingConfig)


def check_asked(sampling: SamplingT, vocabulary: Vocabulary | None, section: str) -> SamplingT:
    """The settings with the values of conditions as a model knows them.

    Args:
        vocabulary: of the model; None: it has no conditions.
        section: where the sampling settings stand in the job, such as `evaluation`.

    Raises:
        RuleBroken: a condition or a value that the model does not know; lists those that it does.
    """
    if vocabulary is None:
        for name in ("conditions", "like"):
            if sampling.model_dump(include={name}):
                rule = "is for a model with conditions, and this one has none"
                raise RuleBroken(
                    f"{section}.{name}", rule, getattr(sampling, name), "leave it out, or train with model.conditions"
                )
        return sampling
    asked = {}
    for name, value in sampling.conditions.items():
        key = f"{section}.conditions.{name}"
        if name not in vocabulary.names:
            raise RuleBroken(
                f"{section}.conditions", f"the model's conditions are {', '.join(vocabulary.names)}", name, "name these"
            )
        condition = vocabulary.condition(name)
        if isinstance(condition, Category):
            asked[name] = _known(value, condition, key)
        else:
            try:
                assert not isinstance(value, dict)
                asked[name] = None if value is None else float(value)
            except (AssertionError, ValueError):
                raise RuleBroken(key, "must be a number", value, f"such as {condition.mean:.4g}") from None
    return sampling.model_copy(update={"conditions": asked}) if asked else sampling


def _known(value: Asked, category: Category, key: str) -> Asked:
    """What is asked of a category, in its names."""
    if value is None:
        return None
    shares = value if isinstance(value, Mapping) else {value: 1}
    names = {f"{name:g}" if isinstance(name, float) else name: share for name, share in shares.items()}
    for name in names:
        if name not in category.values:
            near = difflib.get_close_matches(name, category.values, n=1)
            rule = f"must be one of {', '.join(category.values)}"
            raise RuleBroken(key, rule, name, f"did you mean {near[0]}?" if near else "choose one of these")
    return names if isinstance(value, Mapping) else next(iter(names))


def one_pass(sampling: SamplingT, section: str) -> SamplingT:
    """How a saved GAN's slices are drawn: what a job that names only a model cannot know before it is read.

    Args:
        section: where the sampling settings stand in the job, such as `evaluation`.

    Raises:
        RuleBroken: settings were given that mean nothing to a GAN; names them.
    """
    check_one_pass({name: getattr(sampling, name) for name in sampling.model_fields_set}, section)
    return sampling.model_copy(update=ONE_PASS)


def check_one_pass(given: Mapping[str, Any], section: str) -> None:
    """Refuse sampling settings that mean nothing to a GAN.

    Args:
        given: the settings that were given, by name.
        section: where they stand in the job.

    Raises:
        RuleBroken: names them.
    """
    unused = families.unused_in_one_pass(given)
    if unused:
        raise RuleBroken(
            f"{section}.{unused[0]}",
            "the model is a GAN and draws in one pass",
            given[unused[0]],
            f"leave out {', '.join(unused)}, or set to null",
        )
