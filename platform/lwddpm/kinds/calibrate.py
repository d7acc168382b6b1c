"""`lwddpm models calibrate`: gives a model that was trained before there were priors, or by other code, its prior."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from lwddpm.cluster.session import Session
from lwddpm.config import EvaluateJob
from lwddpm.diffusion.prior import SLICES_PER_DIRECTION
from lwddpm.errors import ConfigError, DataError
from lwddpm.kinds.prepare import prepare, summary_of
from lwddpm.kinds.saved_model import fetch
from lwddpm.tracking import registration
from lwddpm.training.fitted_prior import calibrated_for, prior_of
from lwddpm.training.stored_model import load_model
from lwddpm.training.stored_presets import PRESETS_FILE, read_presets, write_presets
from lwddpm.training.stored_prior import PRIOR_FILE, write_prior


def run_calibration(job: EvaluateJob, session: Session, *, fresh: bool = False) -> dict[str, Any]:
    """Compute the prior of a model on the dataset that it was trained on, and keep it with the model.

    A folder gets the file. A registered version never changes: a new one of the same weights is registered, which takes
    over the alias that `model_uri` names, and has no metrics yet.

    Args:
        job: names the model and its dataset; its settings of evaluation do not matter.
        fresh: compute it again where the model has one.

    Raises:
        ConfigError: no such model, or one that does not denoise.
        DataError: another dataset, or too few training slices.
    """
    model_dir, saved = fetch(job, session)
    if saved.diffusion is None:
        raise ConfigError(f"{job.model_uri}: must be a diffusion model, is a GAN, which draws in one pass")
    summary: dict[str, Any] = {"name": job.name, "model_uri": job.model_uri}
    if (model_dir / PRIOR_FILE).exists() and not fresh:
        return summary | {"state": "has a prior already; --fresh computes it again"}
    dataset = prepare(job.data, session, False)
    if dataset.version != saved.dataset_version:
        raise DataError(
            f"{dataset.path}: must be the dataset that the model was trained on, version {saved.dataset_version[:12]}, "
            f"is version {dataset.version[:12]}; give the settings of its training with --set data..."
        )
    network, _ = load_model(model_dir)
    prior = prior_of(dataset, saved.diffusion, saved.conditions)
    if prior is None:
        raise DataError(
            f"{dataset.path}: a prior takes {SLICES_PER_DIRECTION} or more training slices, got {dataset.num('train')}"
        )
    prior = calibrated_for(prior, network, saved.diffusion, dataset)
    summary |= {"dataset": summary_of(dataset), "directions": len(prior.directions), "state": "calibrated"}
    if not job.model_uri.startswith("models:/"):
        write_prior(model_dir, prior)
        if (model_dir / PRESETS_FILE).exists():
            write_presets(model_dir, read_presets(model_dir).unmeasured())
        return summary
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(model_dir, Path(scratch) / "model"))  # a local store hands out its own files
        write_prior(copy, prior)
        version = registration.register_calibrated(job.model_uri, copy)
    return summary | {"model": {"name": version.name, "version": version.version, "aliases": version.aliases}}
