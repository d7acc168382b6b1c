"""The presets of a model, `presets.json` beside its weights: named ways to draw, with what they were measured at.

A training writes `evaluated`, that of its own evaluation; a job of kind `tradeoff` adds `realistic`, `balanced` and
`diverse`. Those of a registered version are a tag of it, too (`tracking.version_presets`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lwddpm.config import EVALUATED, NO_PRESET, PresetName, RuleBroken, SamplingConfig, SamplingT
from lwddpm.errors import ConfigError
from lwddpm.families import SAMPLER
from lwddpm.files import write_whole
from lwddpm.training.stored_files import Written, read_json_file
from lwddpm.wording import listed

PRESETS_FILE = "presets.json"
# The settings that are a way to draw: all but which slices, and how they are computed.
OF_A_PRESET = frozenset(SamplingConfig.model_fields) - {"preset", "seed", "batch_size", "precision"}


class Figure(BaseModel):
    """What slices that were drawn with a preset score.

    Attributes:
        floor: the same of real held-out slices; None where there is no such thing.
        n: slices of a sampling.
        samplings: with other seeds, of which `value` is the mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    value: float
    floor: float | None = None
    n: int
    samplings: int = 1


class Preset(BaseModel):
    """A way to draw.

    Attributes:
        sampling: settings as in a job file; what is not in it is at its default.
        network_calls: that draw a slice.
        figures: by metric; empty where nothing has been measured, as after `models calibrate`.
        why: where it comes from, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    sampling: dict[str, Any]
    network_calls: Annotated[int, Field(ge=1)]
    figures: dict[str, Figure] = {}
    why: Annotated[str, Field(max_length=1000)] = ""

    @field_validator("sampling")
    @classmethod
    def _are_settings(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if foreign := settings.keys() - OF_A_PRESET:
            raise ValueError(f"{', '.join(sorted(foreign))}: no part of a preset")
        SamplingConfig.model_validate(settings)
        return settings

    @classmethod
    def of(cls, sampling: SamplingConfig, network_calls: int, figures: Mapping[str, Figure], why: str) -> "Preset":
        """The preset of settings that slices were drawn and measured with."""
        settings = sampling.model_dump(mode="json", include=set(OF_A_PRESET))
        return cls(sampling=settings, network_calls=network_calls, figures=dict(figures), why=why)

    @property
    def words(self) -> str:
        return words_of(SamplingConfig.model_validate(self.sampling))


class Presets(Written):
    """`presets.json`: presets by name. `evaluated` is used where nothing is asked for."""

    presets: dict[PresetName, Preset] = Field({})

    def with_presets(self, added: Mapping[str, Preset]) -> "Presets":
        """These and the added ones, which replace those of their names."""
        return self.model_copy(update={"presets": {**self.presets, **added}})

    def unmeasured(self) -> "Presets":
        """The same for a model that has got another prior: without figures, and with a start that follows from it."""
        changed = {
            name: preset.model_copy(
                update={"figures": {}, "sampling": {k: v for k, v in preset.sampling.items() if k != "start"}}
            )
            for name, preset in self.presets.items()
        }
        return self.model_copy(update={"presets": changed})

    def resolved(self, sampling: SamplingT, section: str) -> tuple[str, SamplingT]:
        """What slices are drawn with: the preset that is asked for, or else `evaluated` if there is one, and on top the
        single settings that were given.

        Args:
            sampling: as it was validated: it knows which settings were given.
            section: of the job file, for messages.

        Returns:
            The preset's name, `plain` where none is used; the settings, which name no preset.

        Raises:
            ConfigError: no such preset; lists those there are. Or a given setting does not go with those of the preset.
        """
        name = sampling.preset or (EVALUATED if EVALUATED in self.presets else NO_PRESET)
        if name != NO_PRESET and name not in self.presets:
            there = listed([*self.presets, f"{NO_PRESET} (the platform's defaults)"])
            raise ConfigError(f"{section}.preset: must be one of the model's, {there}, got {name}")
        settings = {} if name == NO_PRESET else self.presets[name].sampling
        given = {key: getattr(sampling, key) for key in sampling.model_fields_set}
        try:
            return name, type(sampling).model_validate({**settings, **given, "preset": None})
        except ValidationError as error:
            broken = error.errors()[0]
            rule = broken.get("ctx", {}).get("error", broken["msg"])
            key = rule.below(section) if isinstance(rule, RuleBroken) else f"{section}: {rule}"
            raise ConfigError(f"{key}; the other settings are those of preset {name}") from None


def words_of(sampling: SamplingConfig) -> str:
    """How slices are drawn, in one line: what differs from the defaults."""
    plain = SamplingConfig()
    parts: list[str] = ["one pass of the generator"] if sampling.sampler == SAMPLER else [sampling.sampler]
    if sampling.sampler != SAMPLER:
        parts.append(f"{sampling.num_inference_steps} step{'' if sampling.num_inference_steps == 1 else 's'}")
    for name in SamplingConfig.model_fields:
        value = getattr(sampling, name)
        if name not in OF_A_PRESET - {"sampler", "num_inference_steps"} or value == getattr(plain, name):
            continue
        match value:
            case True:
                told = ""
            case [low, high]:
                told = f" {low:g} to {high:g}"
            case float():
                told = f" {value:g}"
            case _:
                told = f" {value}"
        parts.append(name.replace("_", " ") + told)
    return ", ".join(parts)


def read_presets(folder: Path) -> Presets:
    """The presets of a model folder; none where an earlier version wrote it.

    Raises:
        CheckpointError: the file is damaged, or of a later version.
    """
    file = folder / PRESETS_FILE
    return read_json_file(file, Presets) if file.exists() else Presets()


def write_presets(folder: Path, presets: Presets) -> None:
    """Put presets into a model folder, in place of those that are there.

    Raises:
        JobError: the disk does not take them.
    """
    write_whole(folder / PRESETS_FILE, presets.model_dump_json(indent=2))
