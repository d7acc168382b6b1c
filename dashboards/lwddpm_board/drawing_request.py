"""What a visitor asks to be drawn, and how a model draws it."""

import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from lwddpm.conditions import Like
from lwddpm.config import ONE_PASS, PresetName, RuleBroken, Sampler, SamplingConfig, check_asked
from lwddpm.config.refused import broken_rules
from lwddpm.config.sampling import AskedValue, GuidanceFrom
from lwddpm.errors import ConfigError
from lwddpm.kinds.saved_model import fitting
from lwddpm.training.stored_model import SavedModel
from lwddpm.training.stored_presets import Presets

MOST = 256
_BATCH = 8  # small: progress and cancelling come between batches
AWAY_FROM = {  # what guidance leads away from -> in words
    "guide": "the guide",
    "unconditional": "being told nothing",
    "unconditional_guide": "the guide, told nothing",
}


class DrawingRequest(BaseModel):
    """What to draw; image i depends on the seed and i alone."""

    model: Annotated[str, Field(max_length=300)]
    count: Annotated[int, Field(ge=1, le=MOST)] = 16
    preset: PresetName | None = None  # as `sampling.preset`; what is None below is as it says
    sampler: Sampler | None = None
    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0
    eta: Annotated[float, Field(ge=0, le=1)] | None = None
    guidance: Annotated[float, Field(ge=1, le=100)] | None = None
    guidance_from: GuidanceFrom | None = None
    condition_guidance: Annotated[float, Field(ge=1, le=100)] | None = None
    guidance_low: Annotated[float, Field(ge=0)] = 0.0
    guidance_high: Annotated[float, Field(ge=0)] = 0.0  # no upper end
    truncation: Annotated[float, Field(gt=0)] | None = None  # of a GAN
    conditions: Annotated[dict[Annotated[str, Field(max_length=100)], AskedValue], Field(max_length=20)] = {}
    like: Like | None = None
    nearest: bool = True


def settings_of(wanted: DrawingRequest, saved: SavedModel, model_dir: Path, presets: Presets) -> SamplingConfig:
    """How this model draws what is wanted: a GAN in one pass, which knows neither sampler nor steps.

    Raises:
        ConfigError: the model cannot do it.
    """
    try:
        return _settled(wanted, saved, model_dir, presets)
    except (ConfigError, RuleBroken) as error:  # where it lies here is no help to a visitor
        told = str(error).replace(str(model_dir), "this model").replace("sampling.num_inference_steps", "steps")
        raise ConfigError(told.replace("sampling.", "")) from None


def _settled(wanted: DrawingRequest, saved: SavedModel, model_dir: Path, presets: Presets) -> SamplingConfig:
    asked: dict[str, Any] = {"preset": wanted.preset, "seed": wanted.seed, "batch_size": _BATCH, "like": wanted.like}
    asked |= {"conditions": wanted.conditions or None}
    if saved.diffusion is None:
        asked |= {"truncation": wanted.truncation}
        _, sampling = presets.resolved(_given(asked), "sampling")
        return check_asked(sampling, saved.conditions, "sampling").model_copy(update=ONE_PASS)
    low, high = wanted.guidance_low, wanted.guidance_high
    if 0 < high <= low:
        raise ConfigError(f"guidance_high: must be above guidance_low = {low:g}, got {high:g}; 0: no upper end")
    asked |= {
        "sampler": wanted.sampler,
        "num_inference_steps": wanted.steps,
        "eta": wanted.eta,
        "guidance": wanted.guidance,
        "guidance_from": wanted.guidance_from,
        "condition_guidance": wanted.condition_guidance,
        "guidance_interval": None if low == high == 0 else (low, high or sys.float_info.max),
    }
    _, sampling = presets.resolved(_given(asked), "sampling")
    return fitting(sampling, saved, model_dir, "sampling")


def _given(asked: dict[str, Any]) -> SamplingConfig:
    try:
        return SamplingConfig.model_validate(asked)
    except ValidationError as error:
        raise broken_rules(error, SamplingConfig)[0] from None
