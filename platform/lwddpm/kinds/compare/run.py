"""A comparison: every system trained as an ordinary job, measured by one protocol, told in one report.

    <output>/<name>/
        run.json, result.json      as of a training
        bench/                     samples, measurements and features, each made once
        report/                    data, figures, report.html, report.md: also artifacts of the run

Trainings have run folders and MLflow runs of their own beneath the comparison's; those that are finished are reused.
"""

import platform
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lwddpm import families
from lwddpm.addresses import public
from lwddpm.cluster.session import Session, usable_cpus
from lwddpm.config import CompareJob, EvaluateJob, Metric, System
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, JobError
from lwddpm.evaluation.features import NETWORKS, WEIGHTS_SHA256
from lwddpm.evaluation.protocol import num_evaluated
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.files import read_json, write_json
from lwddpm.jobfile import flattened
from lwddpm.kinds.compare.kept import Bench
from lwddpm.kinds.compare.measurements import Measurer, model_of, snr_curves
from lwddpm.kinds.compare.plan import Plan, Planned, as_system, make_plan, protocol_of
from lwddpm.kinds.train import check_dataset, prepare, run_evaluation, run_training, summary_of
from lwddpm.progress import say
from lwddpm.report import data as report_data
from lwddpm.report import page, table
from lwddpm.report.data import Curves, Missing, Report, ReportData
from lwddpm.report.statements import judge
from lwddpm.tracking.provenance import git_commit
from lwddpm.tracking.rundir import clear_folder, compare_folder, lock_folder, read_run_id, write_run_id
from lwddpm.tracking.runs import TrackedRun, tracked_run
from lwddpm.tracking.store import tracking_uri
from lwddpm.training.checkpoint import read_saved_model
from lwddpm.training.schedule import Schedule

DISTANCES: tuple[Metric, ...] = ("fid", "fd_lite0")
_CURVE_POINTS = 400


def check_compare(job: CompareJob) -> None:
    """What can be known to be wrong before anything starts.

    Raises:
        ConfigError: an override that does not fit a system or a variant, or no Fréchet distance to compare by.
    """
    if not set(DISTANCES) & set(job.protocol.metrics):
        raise ConfigError(
            f"evaluation.metrics: a comparison needs fid or fd_lite0, got {list(job.protocol.metrics)}; add one"
        )
    make_plan(job, num_train=10**9)
    for system in job.compare.systems:
        protocol_of(job, system, 0)


def run_compare(job: CompareJob, session: Session, fresh: bool) -> dict[str, Any]:
    """Run or continue a comparison to its end.

    Raises:
        ConfigError: wrong input.
        JobError: a training failed.
        KeyboardInterrupt: stopped by the user; the same command continues.
    """
    folder = compare_folder(job)
    uri = tracking_uri(job.tracking)
    with lock_folder(folder):
        done = read_json(folder / "result.json")
        if not fresh and done is not None and done["digest"] == job.digest() and done["tracking_uri"] == public(uri):
            say(f"{job.name}: finished already, in {folder}; --fresh does it all again")
            return done
        if fresh:
            clear_folder(folder)
        run_id = read_run_id(folder, uri)
        with tracked_run(job, uri, run_id, job.digest()) as parent:
            write_run_id(folder, parent.run_id, uri)
            dataset = prepare(job.data, session, fresh)
            session.rest()
            plan = make_plan(job, dataset.num("train"))
            for training in plan.trainings.values():
                check_dataset(training.job, dataset)
            num_evaluated(dataset, job.protocol)
            parent.dataset(dataset)
            bench = Bench(folder / "bench", dataset, session, job.protocol.inception_weights)
            runs = _train_all(job, plan, dataset, session, fresh)
            missing = _adopt_evaluations(job, plan, dataset, session, folder, runs, bench, parent)
            data = _collect(job, plan, dataset, bench, folder, runs, missing, parent)
            report_data.save(data, folder / "report")
            say("drawing the report")
            page.draw(data, folder / "report")
            parent.client.log_artifacts(parent.run_id, str(folder / "report"), "report")
            parent.values(_headline(data.report), step=0)
            result = _summary(job, dataset, folder, parent, data.report)
            write_json(folder / "result.json", result)
    return result


def _train_all(job: CompareJob, plan: Plan, dataset: Dataset, session: Session, fresh: bool) -> dict[str, str]:
    """MLflow run ids of all trainings, by label."""
    as_systems = {
        training.label: as_system(job, training.system, training)
        for system, trainings in plan.systems.items()
        if system != "ddim"
        for training in trainings
    }
    runs = {}
    for number, training in enumerate(plan.trainings.values(), start=1):
        say(f"training {number} of {len(plan.trainings)}: {training.label}")
        result = run_training(as_systems.get(training.label, training.job), session, fresh, dataset=dataset)
        runs[training.label] = str(result["run_id"])
    return runs


def _adopt_evaluations(
    job: CompareJob,
    plan: Plan,
    dataset: Dataset,
    session: Session,
    folder: Path,
    runs: dict[str, str],
    bench: Bench,
    parent: TrackedRun,
) -> list[Missing]:
    """Evaluate ddim, and hand the first evaluation of every system to the bench.

    Returns:
        Metrics that could not be computed.
    """
    seed = job.compare.sampling_seeds[0]
    missing: dict[str, str] = {}
    for system, trainings in plan.systems.items():
        config = protocol_of(job, system, seed)
        for training in trainings:
            run_id = runs[training.label]
            if system == "ddim":
                run_id = _evaluate_ddim(job, training, dataset, session, folder)
            with tempfile.TemporaryDirectory() as place:
                found = parent.client.download_artifacts(run_id, "evaluation/metrics.json", place)
                result = EvaluationResult.model_validate_json(Path(found).read_text())
                images = np.load(parent.client.download_artifacts(run_id, "samples/images.npy", place))
            bench.adopt(model_of(training), config, images, result)
            missing |= {unavailable.name: unavailable.reason for unavailable in result.unavailable}
    return [Missing(name=name, reason=reason) for name, reason in missing.items()]


def _evaluate_ddim(job: CompareJob, training: Planned, dataset: Dataset, session: Session, folder: Path) -> str:
    """The run in which the DDPM's weights are measured with DDIM sampling; made once."""
    evaluation = EvaluateJob(
        kind="evaluate",
        name=f"{job.name}-{training.label.replace('ddpm', 'ddim', 1)}",
        model_uri=str(model_of(training)),
        data=job.data,
        evaluation=protocol_of(job, "ddim", job.compare.sampling_seeds[0]),
        workers=job.workers,
        tracking=job.tracking,
        output=job.output,
    )
    file = folder / "bench" / "evaluations.json"
    kept = read_json(file) or {}
    key = f"{evaluation.digest()}-{training.job.training_digest()}-{dataset.version}"
    if key not in kept:
        say(f"evaluating {evaluation.name}")
        kept[key] = run_evaluation(evaluation, session, fresh=False, dataset=dataset)["run_id"]
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, kept)
    return str(kept[key])


def _collect(
    job: CompareJob,
    plan: Plan,
    dataset: Dataset,
    bench: Bench,
    folder: Path,
    runs: dict[str, str],
    missing: list[Missing],
    parent: TrackedRun,
) -> ReportData:
    """Make, or find, every measurement."""
    asked = [name for name in DISTANCES if name in job.protocol.metrics]
    unavailable = {m.name for m in missing}
    distance = next((name for name in asked if name not in unavailable), None)
    if distance is None:
        reasons = "; ".join(m.reason for m in missing)
        raise JobError(f"none of {', '.join(asked)} could be computed ({reasons}); add fd_lite0 to evaluation.metrics")
    measurer = Measurer(job, plan, bench, distance)
    measurements = [*measurer.systems(), *measurer.variants(), *measurer.steps(), *measurer.epochs()]
    trainings = [
        _training(training, runs[training.label], measurer.warnings.get(training.label, ()))
        for training in plan.trainings.values()
    ]
    info = parent.client.get_run(parent.run_id).info
    report = Report(
        name=job.name,
        run_id=parent.run_id,
        created=_utc(info.start_time),
        environment=_environment(),
        dataset=summary_of(dataset) | {"labels": list(dataset.labels_names)},
        simulated=dataset.manifest.simulated,
        image_size=dataset.manifest.image_size,
        settings=job.model_dump(mode="json", exclude={"tracking", "output"}),
        protocol=job.protocol.model_dump(mode="json", exclude={"inception_weights"}),
        proxy=job.proxy.model_dump(mode="json", exclude={"inception_weights"}),
        distance=distance,
        extractor=NETWORKS[distance],
        weights_sha256=WEIGHTS_SHA256[distance],
        missing=tuple(missing),
        systems=tuple(_system(job, name, found) for name, found in plan.systems.items()),
        trainings=tuple(trainings),
        measurements=tuple(measurements),
        costs=tuple(measurer.costs(folder / "bench")),
        sample_sizes=tuple(measurer.sample_sizes()),
        noise=tuple(measurer.noise()),
        snr=snr_curves(measurer.diffusion),
        strips=measurer.strips(),
    )
    curves = Curves()
    for system, (training, *_) in plan.systems.items():
        if system != "ddim":
            train = training.job
            schedule = Schedule.of(train.training, dataset.num("train"), train.batches_per_step)
            curves |= _curves(system, runs[training.label], schedule.steps_per_epoch, parent)
    return ReportData(report=report, curves=Curves(curves), images=measurer.images)


def _system(job: CompareJob, name: System, trainings: list[Planned]) -> report_data.System:
    config = protocol_of(job, name, 0)
    denoises = name not in families.ADVERSARIAL
    return report_data.System(
        name=name,
        trainings=tuple(training.label for training in trainings),
        timesteps=job.diffusion.num_train_timesteps if denoises and job.diffusion else None,
        sampler=config.sampler if denoises else None,
        inference_steps=config.num_inference_steps if denoises else None,
    )


def _training(training: Planned, run_id: str, warnings: tuple[str, ...]) -> report_data.Training:
    saved = read_saved_model(model_of(training))
    other = {"kind", "name", "seed", "output", "workers", "tracking", "data", "evaluation", "registry"}
    return report_data.Training(
        label=training.label,
        family=training.job.model.family,
        seed=training.seed,
        run_id=run_id,
        digest=training.job.training_digest(),
        parameters=saved.parameters,
        steps=saved.step,
        epochs=saved.epoch,
        settings=flattened(training.job.model_dump(mode="json", exclude=other)),
        warnings=warnings,
    )


def _curves(system: str, run_id: str, steps_per_epoch: int, parent: TrackedRun) -> Curves:
    """Logged losses of a training, thinned to means of neighbours."""
    curves = Curves()
    for metric in parent.client.get_run(run_id).data.metrics:
        if metric == "val/loss" or (metric.startswith("train/") and "loss" in metric):
            logged = sorted((m.step, m.value) for m in parent.client.get_metric_history(run_id, metric))
            parts = np.array_split(np.array(logged, dtype=float), min(_CURVE_POINTS, len(logged)))
            points = np.array([part.mean(0) for part in parts])
            curves[system, metric] = np.column_stack([points[:, 0], points[:, 0] / steps_per_epoch, points[:, 1]])
    return curves


def _environment() -> dict[str, str]:
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    info = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in _lines(info) if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    found = {
        "processor": f"{processor}, {usable_cpus()} CPUs",
        "GPU": ", ".join(devices) or "none",
        "Python": platform.python_version(),
        **{name: version(name) for name in ("lwddpm", "torch", "diffusers", "ray", "mlflow")},
    }
    commit = git_commit()
    return found | ({"commit": commit} if commit else {})


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _utc(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _headline(report: Report) -> dict[str, float]:
    """The table as metrics of the parent run: `SYSTEM/NAME`."""
    found: dict[str, float] = {}
    for row in table.rows(report):
        values = {
            report.distance: row.distance,
            table.SSIM: row.ssim,
            "images_per_s": row.images_per_s,
            "peak_memory_mib": row.peak_memory_mib,
            "seconds_per_64": row.seconds_per_64,
        }
        found |= {f"{row.system.name}/{name}": value.estimate.mean for name, value in values.items() if value}
        found[f"{row.system.name}/parameters"] = row.parameters
    return found


def _summary(job: CompareJob, dataset: Dataset, folder: Path, parent: TrackedRun, report: Report) -> dict[str, Any]:
    return {
        "name": job.name,
        "digest": job.digest(),
        "run_id": parent.run_id,
        "run_dir": str(folder),
        "tracking_uri": public(tracking_uri(job.tracking)),
        "dataset": summary_of(dataset),
        "report": str(folder / "report" / "report.html"),
        "statements": {found.statement.key: found.verdict for found in judge(report)},
        "model": None,
    }
