"""A sample job with a section `edit`: slices that begin with something given, as marked files, with a figure."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.generate import generate_images
from lwddpm.cluster.session import Session
from lwddpm.config import EditConfig, SampleJob
from lwddpm.data.edit_source import Given, bring_to_size
from lwddpm.evaluation.edit_figures import FIGURE_FILE, inpainting_figure, variations_figure, way_figure
from lwddpm.evaluation.figure_style import LIGHT, render
from lwddpm.files import complete_folder
from lwddpm.kinds.edits import Planned, check_family, planned
from lwddpm.kinds.sample_files import drawer_of, fetched, write_about, write_slices
from lwddpm.kinds.saved_model import asked_of, calls_of, mark_of
from lwddpm.marks.mark import Mark


def run_edits(job: SampleJob, session: Session) -> dict[str, Any]:
    """Draw the edits of a job into `job.out`: a marked file for each slice, grids of the first 64 of each strength,
    figure.png, samples.json."""
    config = job.edit
    assert config is not None
    model = fetched(job, session)
    _, model_dir, saved = model
    check_family(_way(config), saved)
    given = bring_to_size(config, saved.image_size) if config.between is None else None
    drawer = drawer_of(job, session, model)
    sampling, out = drawer.sampling, Path(job.out).resolve()
    with ExportedSeries(job.name, "") as exported:
        drawn: list[tuple[Planned, Mark, np.ndarray]] = []
        for plan in planned(config, given, saved):
            mark = mark_of(drawer.model_uri, model_dir, saved, sampling, job.count, plan.edited)
            drawn.append((plan, mark, generate_images(model_dir, sampling, job.count, session, exported, plan.edit)))
    calls = max(calls_of(sampling, model_dir, plan.edit) for plan, _, _ in drawn)
    brought = given.brought if given is not None else ""
    with complete_folder(out) as folder:
        width = len(str(job.count - 1))
        for plan, mark, images in drawn:
            assert mark.edit is not None
            prefix = f"strength_{mark.edit.strength:g}_" if len(drawn) > 1 else ""
            asked = asked_of(sampling, saved, plan.edit.asked_as(range(job.count)))
            names = [f"{prefix}{index:0{width}d}" for index in range(len(images))]
            write_slices(folder, images, mark, asked, job.format, names, f"{prefix}grid.png")
        (folder / FIGURE_FILE).write_bytes(render(lambda _: _figure(config, given, drawn), LIGHT))
        edits = [mark.edit.model_dump() for _, mark, _ in drawn if mark.edit is not None]
        write_about(folder, job, drawer, drawn[0][1], calls, edits=edits, brought_to_size=brought)
    return {
        "name": job.name,
        "out": str(out),
        "count": job.count * len(drawn),
        "preset": drawer.preset,
        "edit": _way(config),
        "brought_to_size": brought,
        "image_size": saved.image_size,
        "network_calls": calls,
    }


def _way(config: EditConfig) -> str:
    return next(way for way in ("inpaint", "variations", "between") if getattr(config, way) is not None)


def _figure(config: EditConfig, given: Given | None, drawn: list[tuple[Planned, Mark, np.ndarray]]) -> Figure:
    if given is None:
        assert config.between is not None
        return way_figure(drawn[0][2], config.between)
    if given.mask is not None:
        return inpainting_figure(given.source, given.mask, drawn[0][2])
    by_strength = {
        mark.edit.strength: images for _, mark, images in drawn if mark.edit and mark.edit.strength is not None
    }
    return variations_figure(given.source, by_strength)
