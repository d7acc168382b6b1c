"""Copying against epochs, beside quality: the snapshots of a training under the thresholds of its model's audit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lwddpm.audit.result import SnapshotShare
from lwddpm.audit.scores import Scores
from lwddpm.audit.shares import share_of
from lwddpm.audit.thresholds import Thresholds
from lwddpm.cluster.generate import draw_indices, settled
from lwddpm.config import UNGUIDED, SamplingConfig
from lwddpm.errors import ConfigError
from lwddpm.evaluation.distances import ReferenceStatistics
from lwddpm.kinds.audit.audited import Audited
from lwddpm.kinds.audit.compared import Comparer
from lwddpm.kinds.audit.drawings import Drawings
from lwddpm.progress import say
from lwddpm.training.stored_files import sha256_of
from lwddpm.training.stored_model import WEIGHTS_FILE, SavedModel, read_saved_model

# Snapshots have neither prior nor guide.
_ALONE = UNGUIDED | {"start": "noise", "calibrate": False}


def check_snapshots(model_dir: Path) -> None:
    """Refuse, before anything is drawn, a model that no snapshots lie beside.

    Raises:
        ConfigError: says what to name instead.
    """
    if not _folders(model_dir)[:-1]:
        raise ConfigError(
            "audit.snapshots: model_uri must be the folder RUN_FOLDER/model of a training with snapshots "
            f"(training.snapshot_epochs), got {model_dir}, with none beside it; a registered version has none, either"
        )


def over_snapshots(audited: Audited, comparer: Comparer, thresholds: Thresholds, num: int) -> tuple[SnapshotShare, ...]:
    """What the snapshots and the model score, by rising epoch; each drawn from noise and without guidance, since
    snapshots have neither prior nor guide.

    Args:
        audited: the model at the end of the training.
        comparer, thresholds: of its audit.
        num: slices drawn of each.
    """
    reference = ReferenceStatistics.of(comparer.train_features)
    found = []
    for folder in _folders(audited.model_dir):
        saved = read_saved_model(folder)
        alone = audited.sampling
        if saved.diffusion is not None:
            alone = settled(alone.model_copy(update=_ALONE), audited.session)
        drawings = Drawings(_snapshot(audited, folder, saved), alone, num)
        scores = Scores.joined([comparer.drawn(drawings, numbers) for numbers in drawings.chunks])
        share = share_of(int(thresholds.flags(scores.by_detector()).sum()), num)
        distance = reference.distance(torch.from_numpy(scores.embedding))
        say(f"epoch {saved.epoch:g}: {share.value:.1%} of {num:,} slices flagged, fd_lite0 {distance:.1f}")
        found.append(
            SnapshotShare(
                epoch=saved.epoch,
                step=saved.step,
                n=num,
                copied_share=share.value,
                low=share.low,
                high=share.high,
                fd_lite0=distance,
            )
        )
    return tuple(found)


def _snapshot(audited: Audited, folder: Path, saved: SavedModel) -> Audited:
    """It in place of the model."""

    def draw(how: SamplingConfig, numbers: range, count: int) -> np.ndarray:
        return draw_indices(folder, how, numbers, audited.session, audited.exported, f"sampling {folder.name}")

    return replace(audited, model_dir=folder, saved=saved, weights=sha256_of(folder / WEIGHTS_FILE), draw=draw)


def _folders(model_dir: Path) -> list[Path]:
    """Those of the snapshots, by rising epoch, and that of the model."""
    beside = (model_dir.parent / "snapshots").glob("epoch_*") if model_dir.name == "model" else ()
    return [*sorted(beside, key=lambda path: read_saved_model(path).step), model_dir]
