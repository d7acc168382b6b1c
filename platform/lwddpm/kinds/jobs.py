"""One function for each kind of job: takes a validated job, returns a summary that is also the `--json` output.

Each kind is imported when it runs: all together take seconds, in which wrong input would not be said yet.
"""

from pathlib import Path
from typing import Any

from lwddpm.cluster.session import Session
from lwddpm.config import (
    AnyJob,
    CompareJob,
    EvaluateJob,
    PrepareJob,
    SampleJob,
    SearchJob,
    TrainingJob,
    TrainJob,
)
from lwddpm.data.prepare import check_source
from lwddpm.errors import ConfigError
from lwddpm.files import complete_folder, write_json
from lwddpm.offline import offline
from lwddpm.tracking.rundir import check_writable
from lwddpm.tracking.store import check_tracking, connect, named_hosts, tracking_uri


def run_job(job: AnyJob, *, fresh: bool = False, address: str | None = None) -> dict[str, Any]:
    """Run a job to its end.

    Args:
        job: from `jobfile.load_job`.
        fresh: start over instead of continuing or reusing.
        address: a Ray cluster; default RAY_ADDRESS, else Ray inside this process.

    Raises:
        LwddpmError: wrong input (before any worker starts) or a failure.
        KeyboardInterrupt: stopped by the user.
    """
    check_job(job, address, fresh)
    with offline(job.offline, named_hosts(job.tracking)), Session(job.workers, address) as session:
        match job:
            case PrepareJob():
                from lwddpm.kinds.train import prepare, summary_of

                return {"dataset": summary_of(prepare(job.data, session, fresh))}
            case TrainJob():
                from lwddpm.kinds.train import run_training

                return run_training(job, session, fresh)
            case SearchJob():
                from lwddpm.kinds.search.run import run_search

                return run_search(job, session, fresh)
            case CompareJob():
                from lwddpm.kinds.compare.run import run_compare

                return run_compare(job, session, fresh)
            case EvaluateJob():
                from lwddpm.kinds.train import run_evaluation

                return run_evaluation(job, session, fresh)
            case SampleJob():
                return _sample(job, session)


def check_job(job: AnyJob, address: str | None = None, fresh: bool = False) -> None:
    """Everything that can be known to be wrong before Ray starts.

    Raises:
        ConfigError, DataError: one clear message.
    """
    Session(job.workers, address).check()
    if isinstance(job, PrepareJob | TrainingJob | EvaluateJob):
        check_source(job.data, fresh=fresh)
    if not isinstance(job, PrepareJob):
        check_tracking(job.tracking, job.offline)
    if isinstance(job, TrainingJob):
        check_writable(Path(job.output), "output")
        if isinstance(job, SearchJob):
            from lwddpm.kinds.search.run import check_search

            check_search(job)
        elif isinstance(job, CompareJob):
            from lwddpm.kinds.compare.run import check_compare

            check_compare(job)
        weights = job.evaluation.inception_weights if job.evaluation else None
    elif isinstance(job, SampleJob):
        _check_out(Path(job.out).resolve())
        weights = None
    else:
        weights = job.evaluation.inception_weights if isinstance(job, EvaluateJob) else None
    if weights is not None and not Path(weights).is_file():
        raise ConfigError(f"evaluation.inception_weights: no such file, got {weights}; leave it out to use the cache")


def _check_out(out: Path) -> None:
    check_writable(out.parent, "out")
    if out == Path.cwd() or out in Path.cwd().parents:
        raise ConfigError(
            f"out: must not hold the working folder, which it would replace, got {out}; name a new folder"
        )
    if out.exists() and any(out.iterdir()) and not (out / "samples.json").exists():
        raise ConfigError(f"out: must be a new or empty folder, or hold earlier samples, got {out}; choose another")


def _sample(job: SampleJob, session: Session) -> dict[str, Any]:
    from PIL import Image

    from lwddpm.cluster.exported import ExportedSeries
    from lwddpm.cluster.generate import generate_images
    from lwddpm.evaluation import figures
    from lwddpm.kinds.train import fitting, models_folder
    from lwddpm.tracking import registry
    from lwddpm.training.checkpoint import read_saved_model

    connect(tracking_uri(job.tracking))
    model_dir = registry.fetch_model(job.model_uri, models_folder(job, session))
    saved = read_saved_model(model_dir)
    sampling = fitting(job.sampling, saved, "sampling")
    with ExportedSeries(job.name, "") as exported:
        images = generate_images(model_dir, sampling, job.count, session, exported)
    out = Path(job.out).resolve()
    with complete_folder(out) as folder:
        width = len(str(job.count - 1))
        for index, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{index:0{width}d}.png")
        Image.fromarray(figures.tile(images[:64])).save(folder / "grid.png")
        about = {
            "synthetic": True,
            "model_uri": job.model_uri,
            "sampling": sampling.model_dump(),
            "count": job.count,
            "model": saved.model_dump(mode="json"),
        }
        write_json(folder / "samples.json", about)
    return {"name": job.name, "out": str(out), "count": job.count, "image_size": saved.image_size}
