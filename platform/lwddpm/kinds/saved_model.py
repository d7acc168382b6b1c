"""The saved or registered model that an evaluate or sample job names, and what it can be asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lwddpm.cluster.session import Session
from lwddpm.conditions import Value
from lwddpm.config import (
    AuditJob,
    EvaluateJob,
    RuleBroken,
    SampleJob,
    SamplingConfig,
    SamplingT,
    TradeoffJob,
    check_asked,
    check_steps,
    leads_away_from,
    one_pass,
)
from lwddpm.diffusion.editing import Edit
from lwddpm.diffusion.timesteps import network_calls
from lwddpm.errors import ConfigError
from lwddpm.marks.edited import Edited
from lwddpm.marks.mark import Mark, now, uses_prior
from lwddpm.tracking.store import connect, tracking_uri
from lwddpm.training.stored_files import sha256_of
from lwddpm.training.stored_guide import GUIDE_FOLDER, has_guide
from lwddpm.training.stored_model import WEIGHTS_FILE, SavedModel, read_saved_model
from lwddpm.training.stored_prior import PRIOR_FILE, read_prior

# Jobs about a model that is there already.
OfModel = AuditJob | EvaluateJob | SampleJob | TradeoffJob


def fetch(job: OfModel, session: Session) -> tuple[Path, SavedModel]:
    """The model's folder and what it says about itself.

    Raises:
        ConfigError: there is no such model.
    """
    from lwddpm.tracking.model_files import fetch_model  # here: a dry run does without MLflow, which takes seconds

    connect(tracking_uri(job.tracking))
    # on a cluster workers on other nodes read a registered model too, from shared storage
    folder = Path(job.output) / "models" if session.address else None
    model_dir = fetch_model(job.model_uri, folder)
    return model_dir, read_saved_model(model_dir)


def version_uri(job: OfModel) -> str:
    """`model_uri` by number where it is an alias, which may move: `models:/NAME/VERSION`. Folders stay as they are.

    Raises:
        ConfigError: there is no such model.
    """
    if not job.model_uri.startswith("models:/"):
        return job.model_uri
    from lwddpm.tracking.registry import find_version  # here, as above

    connect(tracking_uri(job.tracking))
    version = find_version(job.model_uri)
    return f"models:/{version.name}/{version.version}"


def mark_of(
    model_uri: str,
    model_dir: Path,
    saved: SavedModel,
    sampling: SamplingConfig,
    count: int,
    edit: Edited | None = None,
) -> Mark:
    """The mark of the first of `count` slices that a model draws.

    Args:
        model_uri: `models:/NAME/VERSION`, or a folder, of which the mark says only which training it is from.
        model_dir, saved: the model's folder and what it says about itself.
        sampling: as `fitting` has returned them.
        edit: what they were made from.
    """
    if saved.diffusion is not None:
        sampling = sampling.model_copy(update={"start": start_of(sampling, model_dir)})
    in_registry, by_guide = model_uri.startswith("models:/"), sampling.guidance != 1
    by_guide = by_guide and sampling.guidance_from != "unconditional"
    return Mark(
        model_uri=model_uri if in_registry else f"training:{saved.training_digest}",
        weights_sha256=sha256_of(model_dir / WEIGHTS_FILE),
        prior_sha256=sha256_of(model_dir / PRIOR_FILE) if uses_prior(sampling) else None,
        guide_sha256=sha256_of(model_dir / GUIDE_FOLDER / WEIGHTS_FILE) if by_guide else None,
        edit=edit,
        sampling=sampling,
        index=0,
        count=count,
        drawn_at=now(),
    )


def asked_of(sampling: SamplingConfig, saved: SavedModel, indices: Sequence[int]) -> list[dict[str, Value] | None]:
    """What each image of a drawing is asked to show, by condition; None of a model without conditions."""
    if saved.conditions is None:
        return [None] * len(indices)
    assigned = saved.conditions.assigned(sampling.conditions, sampling.like, indices)
    return [saved.conditions.values(codes) for codes in assigned]


def labels_of(sampling: SamplingConfig, saved: SavedModel, count: int) -> list[str | None] | None:
    """The label that each of the first images of a drawing is asked for; None of a model that is not told labels."""
    return None if saved.conditions is None else saved.conditions.labels(sampling.conditions, sampling.like, count)


def start_of(sampling: SamplingConfig, model_dir: Path) -> Literal["gaussian", "noise"]:
    """Where drawing from a model starts: `gaussian` or `noise`; what `auto` comes to."""
    if sampling.start != "auto":
        return sampling.start
    return "gaussian" if (model_dir / PRIOR_FILE).exists() else "noise"


def calls_of(sampling: SamplingConfig, model_dir: Path, edit: Edit | None = None) -> int:
    """Network calls that draw a slice of a model."""
    saved = read_saved_model(model_dir)
    return network_calls(saved.diffusion, sampling, read_prior(model_dir, saved.image_size), edit)


_NEVER_WITHOUT = "trained with training.condition_dropout = 0 and never without them"


def fitting(sampling: SamplingT, saved: SavedModel, model_dir: Path, section: str) -> SamplingT:
    """The sampling settings as this model takes them: as they are, or one pass of a GAN's generator.

    Args:
        model_dir: its folder.
        section: of the job file, for messages.

    Raises:
        ConfigError: they ask for what the model cannot do.
    """
    try:
        sampling = check_asked(sampling, saved.conditions, section)
        if saved.diffusion is None:
            return one_pass(sampling, section)
        check_steps(sampling, saved.diffusion, section)
    except RuleBroken as broken:
        raise ConfigError(str(broken)) from None
    check_parts(sampling, saved, model_dir, section)
    return settled_guidance(sampling, saved, model_dir)


def settled_guidance(sampling: SamplingT, saved: SavedModel, model_dir: Path) -> SamplingT:
    """The settings of a conditional model with what `guidance_from: auto` comes to, so that it is known later."""
    if saved.conditions is None or sampling.guidance == 1:
        return sampling
    return sampling.model_copy(update={"guidance_from": leads_away_from(sampling, has_guide=has_guide(model_dir))})


def check_parts(sampling: SamplingConfig, saved: SavedModel, model_dir: Path, section: str) -> None:
    """Refuse settings that take a part which a diffusion model does not have: a prior, a guide, a way to draw without
    its conditions.

    Raises:
        ConfigError: names the setting and the part.
    """
    for key, asked in (("start", sampling.start == "gaussian"), ("calibrate", sampling.calibrate)):
        if asked and not (model_dir / PRIOR_FILE).exists():
            raise ConfigError(
                f"{section}.{key}: takes a model with a prior, got {model_dir} without {PRIOR_FILE}; leave it out, or "
                "give the model one: lwddpm models calibrate MODEL --set data.source=PATH"
            )
    conditions = saved.conditions
    if sampling.condition_guidance != 1 and not saved.draws_without_conditions:
        why = "which has no conditions" if conditions is None else f"which was {_NEVER_WITHOUT}"
        raise ConfigError(
            f"{section}.condition_guidance: leads away from the model without its conditions, got "
            f"{sampling.condition_guidance:g} for {model_dir}, {why}; leave it out"
        )
    if sampling.guidance == 1:
        return
    away_from = leads_away_from(sampling, has_guide=has_guide(model_dir))
    if "unconditional" in away_from and conditions is not None and not saved.draws_without_conditions:
        raise ConfigError(
            f"{section}.guidance: leads away from the model without its conditions, got {sampling.guidance:g} for "
            f"{model_dir}, which was {_NEVER_WITHOUT}; leave it out, "
            "or train again with training.condition_dropout=0.1"
        )
    if "unconditional" in away_from and conditions is None and sampling.guidance_from != "auto":
        raise ConfigError(
            f"{section}.guidance_from: {away_from} takes a model with conditions, and this one has none; leave it out"
        )
    if ("guide" in away_from or conditions is None) and not has_guide(model_dir):
        raise ConfigError(
            f"{section}.guidance: takes a model with a guide, got {sampling.guidance:g} for {model_dir} without "
            f"{GUIDE_FOLDER}; leave it out, or run its training job again with --set training.guide_epoch=EPOCH, "
            "one of its training.snapshot_epochs"
        )
