"""What sample jobs share, drawings and edits alike: the model with its settings, marked files, `samples.json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lwddpm.cluster.generate import settled
from lwddpm.cluster.session import Session
from lwddpm.conditions import Value
from lwddpm.config import SampleJob, SamplingConfig
from lwddpm.evaluation import figures
from lwddpm.files import write_json
from lwddpm.kinds.presets import say_drawn, with_preset
from lwddpm.kinds.saved_model import fetch, fitting, start_of, version_uri
from lwddpm.marks import files, png
from lwddpm.marks.mark import MOST_TILES, Mark
from lwddpm.training.stored_model import SavedModel


class Drawer(NamedTuple):
    """The model of a sample job, and how it draws.

    Attributes:
        model_uri: by number where it is registered.
        preset: the name of the one that `sampling` comes from.
    """

    model_uri: str
    model_dir: Path
    saved: SavedModel
    preset: str
    sampling: SamplingConfig


def fetched(job: SampleJob, session: Session) -> tuple[str, Path, SavedModel]:
    """The model of a job: its address, folder, and what it says of itself."""
    model_uri = version_uri(job)
    return model_uri, *fetch(job.model_copy(update={"model_uri": model_uri}), session)


def drawer_of(job: SampleJob, session: Session, model: tuple[str, Path, SavedModel]) -> Drawer:
    """How a fetched model draws what the job asks for; said in one line.

    Raises:
        ConfigError: it cannot.
    """
    model_uri, model_dir, saved = model
    preset, sampling = with_preset(job, job.sampling, model_dir)
    sampling = settled(fitting(sampling, saved, model_dir, "sampling"), session)
    say_drawn(preset, job.sampling, sampling)
    return Drawer(model_uri, model_dir, saved, preset, sampling)


def write_slices(
    folder: Path,
    images: np.ndarray,
    mark: Mark,
    asked: Sequence[dict[str, Value] | None],
    file_format: str,
    names: Sequence[str],
    grid: str = "grid.png",
) -> list[str]:
    """A marked file for each slice, and one with the first of them as tiles.

    Args:
        mark: of the first slice.
        asked: what each slice was asked to show.
        names: of the files, without their ending.

    Returns:
        The names of the files of the slices.
    """
    written = []
    for index, (image, values, name) in enumerate(zip(images, asked, names, strict=True)):
        file = f"{name}{files.ENDINGS[file_format]}"
        marked = mark.model_copy(update={"index": index, "conditions": values})
        (folder / file).write_bytes(files.ENCODERS[file_format](image, marked))
        written.append(file)
    first = images[:MOST_TILES]
    (folder / grid).write_bytes(png.encode(figures.tile(first), mark.model_copy(update={"tiles": len(first)})))
    return written


def write_about(folder: Path, job: SampleJob, drawer: Drawer, mark: Mark, network_calls: int, **own: Any) -> None:
    """`samples.json`: what the slices of a folder are, and how they were drawn; `own`: what only some jobs say."""
    about = {
        "synthetic": True,
        "model_uri": job.model_uri,
        "drawn_by": mark.model_uri,
        "weights_sha256": mark.weights_sha256,
        "format": job.format,
        "preset": drawer.preset,
        "sampling": drawer.sampling.model_dump(),
        "start": start_of(drawer.sampling, drawer.model_dir),
        "network_calls": network_calls,
        "precision": drawer.sampling.precision if drawer.saved.diffusion is not None else "fp32",
        "count": job.count,
        "model": drawer.saved.model_dump(mode="json"),
    }
    write_json(folder / "samples.json", about | own)
