"""A sample job: synthetic slices of a saved or registered model, as marked files."""

from pathlib import Path
from typing import Any

from lwddpm.cluster.session import Session
from lwddpm.config import SampleJob
from lwddpm.errors import ConfigError
from lwddpm.files import complete_folder, write_json
from lwddpm.tracking.rundir import check_writable


def check_out(job: SampleJob) -> None:
    """Refuse a folder that the samples would replace something else in.

    Raises:
        ConfigError: names the folder and the rule.
    """
    out = Path(job.out).resolve()
    check_writable(out.parent, "out")
    if out == Path.cwd() or out in Path.cwd().parents:
        raise ConfigError(
            f"out: must not hold the working folder, which it would replace, got {out}; name a new folder"
        )
    if out.exists() and any(out.iterdir()) and not (out / "samples.json").exists():
        raise ConfigError(f"out: must be a new or empty folder, or hold earlier samples, got {out}; choose another")


def run_sampling(job: SampleJob, session: Session) -> dict[str, Any]:
    """Draw `job.count` slices into `job.out`: a marked file each, grid.png with the first 64, samples.json."""
    # imported here: `check_out` is asked before anything heavy is loaded
    from lwddpm.cluster.exported import ExportedSeries
    from lwddpm.cluster.generate import generate_images, settled
    from lwddpm.evaluation import figures
    from lwddpm.kinds.presets import say_drawn, with_preset
    from lwddpm.kinds.saved_model import calls_of, fetch, fitting, mark_of, start_of, version_uri
    from lwddpm.marks import files, png
    from lwddpm.marks.mark import MOST_TILES

    model_uri = version_uri(job)
    model_dir, saved = fetch(job.model_copy(update={"model_uri": model_uri}), session)
    preset, sampling = with_preset(job, job.sampling, model_dir)
    sampling = settled(fitting(sampling, saved, model_dir, "sampling"), session)
    say_drawn(preset, job.sampling, sampling)
    with ExportedSeries(job.name, "") as exported:
        images = generate_images(model_dir, sampling, job.count, session, exported)
    out = Path(job.out).resolve()
    mark = mark_of(model_uri, model_dir, saved, sampling, job.count)
    with complete_folder(out) as folder:
        width = len(str(job.count - 1))
        for index, image in enumerate(images):
            content = files.ENCODERS[job.format](image, mark.model_copy(update={"index": index}))
            (folder / f"{index:0{width}d}{files.ENDINGS[job.format]}").write_bytes(content)
        first = images[:MOST_TILES]
        grid = png.encode(figures.tile(first), mark.model_copy(update={"tiles": len(first)}))
        (folder / "grid.png").write_bytes(grid)
        about = {
            "synthetic": True,
            "model_uri": job.model_uri,
            "drawn_by": mark.model_uri,
            "weights_sha256": mark.weights_sha256,
            "format": job.format,
            "preset": preset,
            "sampling": sampling.model_dump(),
            "start": start_of(sampling, model_dir),
            "network_calls": calls_of(sampling, model_dir),
            "precision": sampling.precision if saved.diffusion is not None else "fp32",
            "count": job.count,
            "model": saved.model_dump(mode="json"),
        }
        write_json(folder / "samples.json", about)
    return {
        "name": job.name,
        "out": str(out),
        "count": job.count,
        "preset": preset,
        "image_size": saved.image_size,
        "network_calls": about["network_calls"],
    }
