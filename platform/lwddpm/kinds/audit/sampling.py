"""How an audit draws: as the model's evaluation did, where that is known and the job does not say otherwise."""

from pathlib import Path

from pydantic import ValidationError

from lwddpm.config import AuditJob, SamplingConfig
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.progress import say
from lwddpm.tracking import attachments, registry
from lwddpm.training.checkpoint import SavedModel


def sampling_of(job: AuditJob, named: str, model_dir: Path, saved: SavedModel) -> SamplingConfig:
    """The settings that slices are drawn with.

    Args:
        named: the model's folder, or `models:/NAME/VERSION`.
    """
    if job.sampling is not None:
        return job.sampling
    if saved.diffusion is None:
        return SamplingConfig()
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
