"""Named ways to draw: what a job draws a model with, and the preset that a training leaves."""

from pathlib import Path

from lwddpm.config import EVALUATED, NO_PRESET, EvaluateJob, SampleJob, SamplingConfig, SamplingT
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.progress import say
from lwddpm.tracking import version_presets
from lwddpm.training.stored_presets import (
    OF_A_PRESET,
    Figure,
    Preset,
    Presets,
    read_presets,
    words_of,
    write_presets,
)
from lwddpm.wording import listed

# What is told of a preset, of all that an evaluation measures.
FIGURES = ("fd_lite0", "fid", "precision_lite0", "recall_lite0", "density_lite0", "coverage_lite0")


def presets_of(model_uri: str, model_dir: Path) -> Presets:
    """The presets of a saved model, or of a registered version, which may have got some since its files were written.

    Raises:
        CheckpointError: they are damaged, or of a later version.
    """
    known = version_presets.presets_of(model_uri) if model_uri.startswith("models:/") else None
    return read_presets(model_dir) if known is None else known


def with_preset(job: EvaluateJob | SampleJob, sampling: SamplingT, model_dir: Path) -> tuple[str, SamplingT]:
    """Name of the preset that a job draws with, and its settings with those that the job gives, see `Presets.resolved`.

    Raises:
        ConfigError: no such preset, or a setting that does not go with it.
    """
    section = "evaluation" if isinstance(job, EvaluateJob) else "sampling"
    return presets_of(job.model_uri, model_dir).resolved(sampling, section)


def say_drawn(preset: str, given: SamplingConfig, sampling: SamplingConfig) -> None:
    """In one line, with what a job draws.

    Args:
        preset: its name.
        given: the section as the job has it.
        sampling: as it is drawn.
    """
    of = f"preset {preset}"
    if preset == NO_PRESET:
        of = "the platform's defaults" if given.preset == NO_PRESET else "the model has no preset for it"
    names = [name for name in SamplingConfig.model_fields if name in given.model_fields_set and name in OF_A_PRESET]
    say(f"drawn with {words_of(sampling)} ({of}{f', but {listed(names)} as given' if names else ''})")


def keep_evaluated(model_dir: Path, result: EvaluationResult, network_calls: int) -> None:
    """Keep in a model folder how its training has evaluated it, as the preset `evaluated`.

    Raises:
        JobError: the disk does not take it.
    """
    figures = {
        record.name: Figure(value=record.value, floor=record.floor, n=record.n)
        for record in result.records
        if record.name in FIGURES
    }
    preset = Preset.of(result.config, network_calls, figures, "as the training's evaluation draws")
    write_presets(model_dir, read_presets(model_dir).with_presets({EVALUATED: preset}))
