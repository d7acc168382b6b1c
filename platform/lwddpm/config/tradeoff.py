"""Section `tradeoff` and its job."""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError, field_validator

from lwddpm.config.data import DataConfig
from lwddpm.config.job import Job, ModelUri, NameOfMany
from lwddpm.config.rule import RuleBroken
from lwddpm.config.sampling import DiffusionSampler, PresetName, SamplingConfig, SigmaInterval
from lwddpm.config.section import Fraction, PositiveFloat, PositiveInt, Section, Seed, SeveralInt


def is_all_sources(value: tuple[str, ...]) -> bool:
    """For `exclude_if`: a job that names no sources keeps its digest."""
    return value == ("unconditional", "guide", "unconditional_guide")


_OF_ALL = ("seed", "batch_size", "precision", "preset")  # the same for all settings


class TradeoffConfig(Section):
    """Which ways to draw are measured: each differs in one setting from the model's preset. What a model cannot do (a
    GAN's guidance, a start without a prior) is left out; an empty list leaves a row out."""

    incidental = frozenset({"batch_size"})

    preset: PresetName | None = Field(
        None, description="of the model, from which the others differ; default: evaluated, else 20 DPM-Solver++ steps"
    )
    guidance: tuple[Annotated[float, Field(ge=1, le=100)], ...] = Field((1.0, 1.5, 2.0, 3.0), description="weights w")
    guidance_from: tuple[Literal["unconditional", "guide", "unconditional_guide"], ...] = Field(
        ("unconditional", "guide", "unconditional_guide"),
        exclude_if=is_all_sources,
        description="of a conditional model: what each weight leads away from, see sampling.guidance_from",
    )
    condition_guidance: tuple[Annotated[float, Field(ge=1, le=100)], ...] = Field(
        (1.0, 3.0, 5.0),
        exclude_if=lambda weights: weights == (1.0, 3.0, 5.0),
        description="of a conditional model: weights of sampling.condition_guidance, beside the preset's guidance by a "
        "guide",
    )
    guidance_intervals: tuple[SigmaInterval, ...] = Field(
        ((0.2, 2.0),), description="noise levels between which to guide, see sampling.guidance_interval"
    )
    steps: tuple[PositiveInt, ...] = Field((5, 10, 20), description="numbers of steps, guided and not")
    samplers: tuple[DiffusionSampler, ...] = Field(("sde-dpmsolver++",), description="others than the preset's")
    eta: tuple[Fraction, ...] = Field((0.0, 1.0), description="noise of DDIM in the preset's number of steps")
    starts: tuple[Literal["gaussian", "noise"], ...] = Field(
        ("gaussian", "noise"), description="from the prior of a diffusion model, or from noise"
    )
    truncation: tuple[PositiveFloat, ...] = Field((0.5, 1.0, 1.5, 2.0), description="of a GAN's latents")
    other_weights: bool = Field(
        True,
        description="snapshots and averages (ema_lengths) that lie beside the folder of model_uri are measured too; "
        "they become no preset, for the model has one set of weights",
    )
    points: tuple[dict[str, JsonValue], ...] = Field((), description="more ways to draw: settings of `sampling` each")
    num_samples: SeveralInt = Field(300, description="slices of a sampling; lowered to the held-out slices at hand")
    num_reference: SeveralInt | None = Field(None, description="training slices they are compared with; default: all")
    sampling_seeds: Annotated[tuple[Seed, ...], Field(min_length=2)] = Field(
        (0, 1, 2), description="each way is drawn with each, which says what is noise"
    )
    most_calls: PositiveInt = Field(
        1_000_000, description="network calls of the whole job; ways to draw beyond them are left out, the last first"
    )
    store: bool = Field(True, description="keep what is recommended as presets of the model")
    batch_size: PositiveInt = Field(64, description="slices denoised at a time by a worker; does not change them")

    @field_validator("points")
    @classmethod
    def _are_sampling_settings(cls, points: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for point in points:
            foreign = [name for name in _OF_ALL if name in point]
            if foreign:
                raise RuleBroken("", f"{foreign[0]} is the same for all ways to draw", point, "leave it out")
            try:
                SamplingConfig.model_validate(point)
            except ValidationError as error:
                first = error.errors()[0]
                key = ".".join(str(part) for part in first["loc"])
                raise RuleBroken("", f"must be settings of sampling; {key}: {first['msg']}", point) from None
        return points

    @field_validator("sampling_seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise RuleBroken("", "each may be named once", seeds)
        return seeds


class TradeoffJob(Job):
    """Measures ways to draw from one model: realism against diversity and cost."""

    kind: Literal["tradeoff"]
    name: NameOfMany
    model_uri: ModelUri
    data: DataConfig
    tradeoff: TradeoffConfig = TradeoffConfig()
