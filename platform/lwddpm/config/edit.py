"""Section `edit` of a sample job: drawing that begins with something given (`diffusion.editing`)."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lwddpm.config.rule import RuleBroken
from lwddpm.config.section import Section, Seed, is_false

MOST_STRENGTHS = 8
COUNT, STRENGTH, FRAMES = 8, 0.3, 8  # where only a file, or only the seeds, are given
DETERMINISTIC = ("ddim", "dpmsolver++", "unipc", "heun", "generator")
_WAYS = {"inpaint": ("mask",), "variations": ("strength",), "between": ("frames",)}  # and what else each takes
_Strength = Annotated[float, Field(ge=0, le=1)]


class EditConfig(Section):
    """What a drawing begins with: `inpaint`, `variations` or `between`, one of the three."""

    inpaint: str | None = Field(
        None, description="image file (or DATASET/SPLIT/ROW) of which the region of the mask is drawn anew"
    )
    mask: str | None = Field(
        None, description="image file of the same size: white where to draw anew; outside nothing changes"
    )
    variations: str | None = Field(None, description="image file (or DATASET/SPLIT/ROW) to draw variations of")
    strength: Annotated[tuple[_Strength, ...], Field(min_length=1, max_length=MOST_STRENGTHS)] | None = Field(
        None,
        description="of a variation, or several: the share of the noising steps that it is noised by, from 0 (the "
        f"image itself) to 1 (an ordinary drawing); {STRENGTH} by default",
    )
    between: tuple[Seed, Seed] | None = Field(
        None, description="two seeds: the way from the first slice of one to that of the other"
    )
    frames: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        None, description=f"slices on that way with both ends; {FRAMES} by default"
    )
    fit: Literal["pad", "stretch"] = Field(
        "pad",
        exclude_if=lambda fit: fit == "pad",
        description="how an image of another size than the model's is brought to it, as `data.fit`",
    )
    crop_background: bool = Field(
        False, exclude_if=is_false, description="crop the dark border of such an image first, as `data.crop_background`"
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = {key: value for key, value in values.items() if value is not None}
        ways = [way for way in _WAYS if way in values]
        if len(ways) != 1:
            rule = f"takes one of {', '.join(_WAYS)}"
            raise RuleBroken("", rule, ways or list(values), "leave out the others" if ways else "add one")
        if stray := [key for way, keys in _WAYS.items() if way != ways[0] for key in keys if key in values]:
            raise RuleBroken(stray[0], f"has no meaning for {ways[0]}", values[stray[0]], "leave it out")
        if ways[0] == "inpaint" and "mask" not in values:
            raise RuleBroken("mask", "is required for inpaint", remedy="name an image, white where to draw anew")
        if ways[0] == "variations":
            given = values.get("strength", STRENGTH)
            values["strength"] = given if isinstance(given, list | tuple) else (given,)
        if ways[0] == "between":
            values.setdefault("frames", FRAMES)
        return values

    @model_validator(mode="after")
    def _strengths_differ(self) -> "EditConfig":
        if self.strength is not None and len({f"{strength:g}" for strength in self.strength}) < len(self.strength):
            raise RuleBroken("strength", "must not have a value twice", self.strength, "remove one")
        return self


def count_of(edit: Any, given: Any) -> Any:
    """What `count` of a sample job is, given as a job file has it: of a way between drawings its frames.

    Raises:
        RuleBroken: it is given for a way between drawings, and is another number.
    """
    if not isinstance(edit, dict) or [way for way in _WAYS if edit.get(way) is not None] != ["between"]:
        return COUNT if given is None else given
    frames = edit.get("frames") or FRAMES
    if given not in (None, frames):
        raise RuleBroken("count", "is the number of frames of edit.between", given, "leave it out, or set edit.frames")
    return frames


def check_between(sampler: str, eta: float, edit: EditConfig) -> None:
    """Refuse a way between two drawings whose samplers add noise at each step: it would not be a way.

    Raises:
        RuleBroken: names the sampler and those that can.
    """
    if edit.between is None:
        return
    remedy = f"choose one of {', '.join(DETERMINISTIC[:-1])}"
    if sampler not in DETERMINISTIC:
        raise RuleBroken("sampling.sampler", "must add no noise for edit.between", sampler, remedy)
    if sampler == "ddim" and eta != 0:
        raise RuleBroken("sampling.eta", "must be 0 for edit.between", eta, "leave it out")
