"""The saved or registered model that an evaluate or sample job names, and what it can be asked for."""

from pathlib import Path
from typing import Literal

from lwddpm.cluster.session import Session
from lwddpm.config import (
    EvaluateJob,
    RuleBroken,
    SampleJob,
    SamplingConfig,
    SamplingT,
    TradeoffJob,
    check_steps,
    one_pass,
)
from lwddpm.diffusion.sampling import network_calls
from lwddpm.errors import ConfigError
from lwddpm.marks.mark import Mark, now, uses_prior
from lwddpm.tracking import registry
from lwddpm.tracking.store import connect, tracking_uri
from lwddpm.training.checkpoint import WEIGHTS_FILE, SavedModel, read_saved_model
from lwddpm.training.stored_files import sha256_of
from lwddpm.training.stored_guide import GUIDE_FOLDER, has_guide
from lwddpm.training.stored_prior import PRIOR_FILE, read_prior


def fetch(job: EvaluateJob | SampleJob | TradeoffJob, session: Session) -> tuple[Path, SavedModel]:
    """The model's folder and what it says about itself.

    Raises:
        ConfigError: there is no such model.
    """
    connect(tracking_uri(job.tracking))
    # on a cluster workers on other nodes read a registered model too, from shared storage
    folder = Path(job.output) / "models" if session.address else None
    model_dir = registry.fetch_model(job.model_uri, folder)
    return model_dir, read_saved_model(model_dir)


def version_uri(job: EvaluateJob | SampleJob | TradeoffJob) -> str:
    """`model_uri` by number where it is an alias, which may move: `models:/NAME/VERSION`. Folders stay as they are.

    Raises:
        ConfigError: there is no such model.
    """
    if not job.model_uri.startswith("models:/"):
        return job.model_uri
    connect(tracking_uri(job.tracking))
    version = registry.find_version(job.model_uri)
    return f"models:/{version.name}/{version.version}"


def mark_of(model_uri: str, model_dir: Path, saved: SavedModel, sampling: SamplingConfig, count: int) -> Mark:
    """The mark of the first of `count` slices that a model draws.

    Args:
        model_uri: `models:/NAME/VERSION`, or a folder, of which the mark says only which training it is from.
        model_dir, saved: the model's folder and what it says about itself.
        sampling: as `fitting` has returned them.
    """
    if saved.diffusion is not None:
        sampling = sampling.model_copy(update={"start": start_of(sampling, model_dir)})
    in_registry = model_uri.startswith("models:/")
    return Mark(
        model_uri=model_uri if in_registry else f"training:{saved.training_digest}",
        weights_sha256=sha256_of(model_dir / WEIGHTS_FILE),
        prior_sha256=sha256_of(model_dir / PRIOR_FILE) if uses_prior(sampling) else None,
        guide_sha256=sha256_of(model_dir / GUIDE_FOLDER / WEIGHTS_FILE) if sampling.guidance != 1 else None,
        sampling=sampling,
        index=0,
        count=count,
        drawn_at=now(),
    )


def start_of(sampling: SamplingConfig, model_dir: Path) -> Literal["gaussian", "noise"]:
    """Where drawing from a model starts: `gaussian` or `noise`; what `auto` comes to."""
    if sampling.start != "auto":
        return sampling.start
    return "gaussian" if (model_dir / PRIOR_FILE).exists() else "noise"


def calls_of(sampling: SamplingConfig, model_dir: Path) -> int:
    """Network calls that draw a slice of a model."""
    saved = read_saved_model(model_dir)
    return network_calls(saved.diffusion, sampling, read_prior(model_dir, saved.image_size))


def fitting(sampling: SamplingT, saved: SavedModel, model_dir: Path, section: str) -> SamplingT:
    """The sampling settings as this model takes them: as they are, or one pass of a GAN's generator.

    Args:
        model_dir: its folder.
        section: of the job file, for messages.

    Raises:
        ConfigError: they ask for what the model cannot do.
    """
    try:
        if saved.diffusion is None:
            return one_pass(sampling, section)
        check_steps(sampling, saved.diffusion, section)
    except RuleBroken as broken:
        raise ConfigError(str(broken)) from None
    check_parts(sampling, model_dir, section)
    return sampling


def check_parts(sampling: SamplingConfig, model_dir: Path, section: str) -> None:
    """Refuse settings that take a part which a diffusion model does not have: a prior, a guide.

    Raises:
        ConfigError: names the setting and the part.
    """
    for key, asked in (("start", sampling.start == "gaussian"), ("calibrate", sampling.calibrate)):
        if asked and not (model_dir / PRIOR_FILE).exists():
            raise ConfigError(
                f"{section}.{key}: takes a model with a prior, got {model_dir} without {PRIOR_FILE}; leave it out, or "
                "give the model one: lwddpm models calibrate MODEL --set data.source=PATH"
            )
    if sampling.guidance != 1 and not has_guide(model_dir):
        raise ConfigError(
            f"{section}.guidance: takes a model with a guide, got {sampling.guidance:g} for {model_dir} without "
            f"{GUIDE_FOLDER}; leave it out, or run its training job again with --set training.guide_epoch=EPOCH, "
            "one of its training.snapshot_epochs"
        )
