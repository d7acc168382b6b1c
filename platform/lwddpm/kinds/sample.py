"""A sample job: synthetic slices of a saved or registered model, as marked files."""

import csv
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lwddpm.cluster.session import Session
from lwddpm.conditions import Value
from lwddpm.config import SampleJob
from lwddpm.errors import ConfigError
from lwddpm.files import complete_folder
from lwddpm.tracking.rundir import check_writable

if TYPE_CHECKING:
    from lwddpm.training.stored_model import SavedModel


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
    """Draw `job.count` slices into `job.out`: a marked file each, grid.png with the first 64, samples.json; of a
    conditional model also conditions.csv, what each file was asked to show."""
    # imported here: `check_out` is asked before anything heavy is loaded
    from lwddpm.cluster.exported import ExportedSeries
    from lwddpm.cluster.generate import generate_images
    from lwddpm.kinds.sample_files import drawer_of, fetched, write_about, write_slices
    from lwddpm.kinds.saved_model import asked_of, calls_of, mark_of

    drawer = drawer_of(job, session, fetched(job, session))
    model_uri, model_dir, saved, preset, sampling = drawer
    with ExportedSeries(job.name, "") as exported:
        images = generate_images(model_dir, sampling, job.count, session, exported)
    out = Path(job.out).resolve()
    mark = mark_of(model_uri, model_dir, saved, sampling, job.count)
    asked, calls = asked_of(sampling, saved, range(job.count)), calls_of(sampling, model_dir)
    classes = None
    if saved.conditions is not None and saved.conditions.classes is not None:
        name = saved.conditions.classes.name
        classes = dict(Counter(str(values[name]) for values in asked if values is not None))
    told = {} if classes is None else {"classes": classes}
    with complete_folder(out) as folder:
        width = len(str(job.count - 1))
        names = [f"{index:0{width}d}{_suffix(values, saved)}" for index, values in enumerate(asked)]
        written = write_slices(folder, images, mark, asked, job.format, names)
        if saved.conditions is not None:
            rows = [{"file": file, **(values or {})} for file, values in zip(written, asked, strict=True)]
            _write_table(folder / "conditions.csv", rows)
        write_about(folder, job, drawer, mark, calls, **told)
    return {
        "name": job.name,
        "out": str(out),
        "count": job.count,
        "preset": preset,
        "image_size": saved.image_size,
        "network_calls": calls,
        **told,
    }


def _suffix(values: dict[str, Value] | None, saved: "SavedModel") -> str:
    """What a file's name says of the class that it shows."""
    if values is None or saved.conditions is None or saved.conditions.classes is None:
        return ""
    shown = values[saved.conditions.classes.name]
    return "" if shown is None else f"_{re.sub(r'[^A-Za-z0-9-]+', '_', str(shown))[:60]}"


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
