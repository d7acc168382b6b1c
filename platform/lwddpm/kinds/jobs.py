"""A job of any kind: checked, then handed to its kind's function. The summary returned is also the `--json` output.

Each kind is imported when it runs: all of them take seconds to import, and wrong input is to be reported at once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lwddpm import notify
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
from lwddpm.errors import ConfigError, DataError
from lwddpm.offline import offline
from lwddpm.tracking.rundir import check_writable
from lwddpm.tracking.store import check_tracking, named_hosts


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
    webhook = notify.address(job.notify.url)
    reachable = [*named_hosts(job.tracking), *filter(None, [notify.host_of(webhook)])]
    with (
        told_of_its_end(job, webhook) as told,
        offline(job.offline, reachable),
        Session(job.workers, address) as session,
    ):
        check_job(job, address, fresh)
        summary = _run(job, session, fresh)
        told(summary)
        return summary


@contextmanager
def told_of_its_end(job: AnyJob, webhook: str | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Tell a webhook how a job has ended; the block hands over its summary."""
    summary: dict[str, Any] = {}
    state, why = "failed", ""
    try:
        yield summary.update
        state = "finished"
    except KeyboardInterrupt:
        state = "stopped"
        raise
    except DataError:
        why = ": its data cannot be used"  # messages name files, and files may be named after persons
        raise
    except Exception as error:
        why = f": {error}" if str(error) else f": {type(error).__name__}"
        raise
    finally:
        model = summary.get("model")
        facts = {"job": job.name, "kind": job.kind, "state": state, "run_id": summary.get("run_id")}
        facts |= {"model": f"{model['name']}/{model['version']}"} if isinstance(model, dict) else {}
        text = f"{job.kind} job {job.name} {state}{why}"
        notify.tell(webhook, "job", text, **facts)


def _run(job: AnyJob, session: Session, fresh: bool) -> dict[str, Any]:
    """Hand a checked job to the function of its kind."""
    match job:
        case PrepareJob():
            from lwddpm.kinds.prepare import prepare, summary_of

            return {"dataset": summary_of(prepare(job.data, session, fresh))}
        case TrainJob():
            from lwddpm.kinds.train import run_training

            return run_training(job, session, fresh).summary
        case SearchJob():
            from lwddpm.kinds.search.run import run_search

            return run_search(job, session, fresh)
        case CompareJob():
            from lwddpm.kinds.compare.run import run_compare

            return run_compare(job, session, fresh)
        case EvaluateJob():
            from lwddpm.kinds.evaluate import run_evaluation

            summary, _ = run_evaluation(job, session, fresh)
            return summary
        case SampleJob():
            from lwddpm.kinds.sample import run_sampling

            return run_sampling(job, session)


def check_job(job: AnyJob, address: str | None = None, fresh: bool = False, *, download: bool = True) -> None:
    """Everything that can be known to be wrong before Ray starts. To be called within `offline`, if the job is.

    Args:
        download: fetch what the job needs first, such as Inception weights for the trials of a search; otherwise it
            counts as there.

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
        if job.registry is not None and job.registry.gate is not None:
            from lwddpm.release.policy import load_policy

            load_policy(job.registry.gate)
        if isinstance(job, SearchJob):
            from lwddpm.kinds.search.run import check_search

            check_search(job, download=download)
        elif isinstance(job, CompareJob):
            from lwddpm.kinds.compare.plan import check_compare

            check_compare(job)
        weights = job.evaluation.inception_weights if job.evaluation else None
    elif isinstance(job, SampleJob):
        from lwddpm.kinds.sample import check_out

        check_out(job)
        weights = None
    else:
        weights = job.evaluation.inception_weights if isinstance(job, EvaluateJob) else None
    if weights is not None and not Path(weights).is_file():
        raise ConfigError(f"evaluation.inception_weights: no such file, got {weights}; leave it out to use the cache")
