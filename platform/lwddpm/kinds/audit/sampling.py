"""How an audit draws: with the model's preset `evaluated`, or as its evaluation did; single settings come on top."""

from pathlib import Path

from pydantic import ValidationError

from lwddpm.config import AuditJob, SamplingConfig
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.kinds.presets import presets_of, say_drawn
from lwddpm.progress import say
from lwddpm.tracking import attachments, registry
from lwddpm.training.stored_model import SavedModel


def sampling_of(job: AuditJob, named: str, model_dir: Path, saved: SavedModel) -> SamplingConfig:
    """The settings that slices are drawn with.

    Args:
        named: the model's folder, or `models:/NAME/VERSION`.

    Raises:
        ConfigError: no such preset, or a setting that does not go with it.
    """
    presets = presets_of(named, model_dir)
    if job.sampling is None and not presets.presets and saved.diffusion is not None:  # of an earlier version
        return _of_evaluation(named, model_dir)
    given = job.sampling or SamplingConfig()
    name, sampling = presets.resolved(given, "sampling")
    say_drawn(name, given, sampling)
    return sampling


def _of_evaluation(named: str, model_dir: Path) -> SamplingConfig:
    """Those of the model's evaluation, where that is known."""
    if named.startswith("models:/"):
        content = attachments.of_run(registry.find_version(named), "evaluation/metrics.json")
    else:
        content = _beside(model_dir)
    try:
        config = EvaluationResult.model_validate_json(content or b"").config
    except ValidationError:
        say("how the model's evaluation drew is not known: slices are drawn with the default settings of sampling")
        return SamplingConfig()
    return SamplingConfig.model_validate({name: getattr(config, name) for name in SamplingConfig.model_fields})


def _beside(model_dir: Path) -> bytes | None:
    """The evaluation in the run folder of a model."""
    try:
        return (model_dir.resolve().parent / "evaluation.json").read_bytes()
    except OSError:
        return None
