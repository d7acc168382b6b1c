"""Section `sampling`: how slices are drawn from a model."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from lwddpm.conditions import Like
from lwddpm.config.rule import RuleBroken
from lwddpm.config.section import (
    Fraction,
    PositiveFloat,
    PositiveInt,
    Section,
    Seed,
    is_auto,
    is_empty,
    is_false,
    is_natural,
    is_none,
    is_one,
)
from lwddpm.families import OnePass

DiffusionSampler = Literal["ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++", "unipc", "heun"]
Sampler = Literal[DiffusionSampler, OnePass]


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
    condition_guidance: Annotated[float, Field(ge=1, le=100)] = Field(
        1.0,
        exclude_if=is_one,
        description="of a conditional model, beside guidance by a guide: w of w (D - D_nothing), added for what the "
        "network says more when it is told its conditions; one more call a step; 1: none",
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

    @model_validator(mode="after")
    def _once_away_from_no_conditions(self) -> "SamplingConfig":
        if self.condition_guidance != 1 and self.guidance != 1 and "unconditional" in self.guidance_from:
            rule = f"leads away from no conditions, and so does guidance_from: {self.guidance_from}"
            remedy = "set condition_guidance to 1, or guidance_from to guide"
            raise RuleBroken("condition_guidance", rule, self.condition_guidance, remedy)
        return self

    @property
    def guided(self) -> bool:
        """Whether anything leads away from a weaker estimate, at some noise levels."""
        return self.guidance != 1 or self.condition_guidance != 1

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


SamplingT = TypeVar("SamplingT", bound=SamplingConfig)
