"""A sample job with a section `edit`: slices that begin with something given, as marked files, with a figure."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.generate import generate_images, settled
from lwddpm.cluster.session import Session
from lwddpm.config import EditConfig, SampleJob
from lwddpm.data.edit_source import Given, bring_to_size
from lwddpm.evaluation import figures
from lwddpm.evaluation.edit_figures import FIGURE_FILE, inpainting_figure, variations_figure, way_figure
from lwddpm.evaluation.figure_style import LIGHT, render
from lwddpm.files import complete_folder, write_json
from lwddpm.kinds.edits import Planned, check_family, planned
from lwddpm.kinds.presets import say_drawn, with_preset
from lwddpm.kinds.saved_model import asked_of, calls_of, fetch, fitting, mark_of, start_of, version_uri
from lwddpm.marks import files, png
from lwddpm.marks.mark import MOST_TILES, Mark


def run_edits(job: SampleJob, session: Session) -> dict[str, Any]:
    """Draw the edits of a job into `job.out`: a marked file for each slice, grids of the first 64 of each strength,
    figure.png, samples.json."""
    config = job.edit
    assert config is not None
    model_uri = version_uri(job)
    model_dir, saved = fetch(job.model_copy(update={"model_uri": model_uri}), session)
    check_family(_way(config), saved)
    given = bring_to_size(config, saved.image_size) if config.between is None else None
    preset, sampling = with_preset(job, job.sampling, model_dir)
    sampling = settled(fitting(sampling, saved, model_dir, "sampling"), session)
    say_drawn(preset, job.sampling, sampling)
    out = Path(job.out).resolve()
    with ExportedSeries(job.name, "") as exported:
        drawn: list[tuple[Planned, Mark, np.ndarray]] = []
        for plan in planned(config, given, saved):
            mark = mark_of(model_uri, model_dir, saved, sampling, job.count, plan.edited)
            drawn.append((plan, mark, generate_images(model_dir, sampling, job.count, session, exported, plan.edit)))
    with complete_folder(out) as folder:
        width = len(str(job.count - 1))
        for plan, mark, images in drawn:
            assert mark.edit is not None
            prefix = f"strength_{mark.edit.strength:g}_" if len(drawn) > 1 else ""
            asked = asked_of(sampling, saved, plan.edit.asked_as(range(job.count)))
            for index, (image, values) in enumerate(zip(images, asked, strict=True)):
                marked = mark.model_copy(update={"index": index, "conditions": values})
                content = files.ENCODERS[job.format](image, marked)
                (folder / f"{prefix}{index:0{width}d}{files.ENDINGS[job.format]}").write_bytes(content)
            first = images[:MOST_TILES]
            grid = png.encode(figures.tile(first), mark.model_copy(update={"tiles": len(first)}))
            (folder / f"{prefix}grid.png").write_bytes(grid)
        (folder / FIGURE_FILE).write_bytes(render(lambda _: _figure(config, given, drawn), LIGHT))
        about = {
            "synthetic": True,
            "edits": [mark.edit.model_dump() for _, mark, _ in drawn if mark.edit is not None],
            "brought_to_size": given.brought if given is not None else "",
            "model_uri": job.model_uri,
            "drawn_by": drawn[0][1].model_uri,
            "weights_sha256": drawn[0][1].weights_sha256,
            "format": job.format,
            "preset": preset,
            "sampling": sampling.model_dump(),
            "start": start_of(sampling, model_dir),
            "network_calls": max(calls_of(sampling, model_dir, plan.edit) for plan, _, _ in drawn),
            "precision": sampling.precision if saved.diffusion is not None else "fp32",
            "count": job.count,
            "model": saved.model_dump(mode="json"),
        }
        write_json(folder / "samples.json", about)
    return {
        "name": job.name,
        "out": str(out),
        "count": job.count * len(drawn),
        "preset": preset,
        "edit": _way(config),
        "brought_to_size": about["brought_to_size"],
        "image_size": saved.image_size,
        "network_calls": about["network_calls"],
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
