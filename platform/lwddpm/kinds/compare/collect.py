"""Everything that a comparison's report says, from measurements, run folders and the job; MLflow is not asked."""

import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from lwddpm.cluster.session import usable_cpus
from lwddpm.config import CompareJob, Metric, System
from lwddpm.diffusion.timesteps import network_calls
from lwddpm.errors import JobError
from lwddpm.evaluation.features import NETWORKS, WEIGHTS_SHA256
from lwddpm.evaluation.result import Unavailable
from lwddpm.jobfile import flattened
from lwddpm.kinds.compare.comparison import Comparison
from lwddpm.kinds.compare.measurements import Measurer, model_of, prior_of_start, snr_curves
from lwddpm.kinds.compare.plan import DISTANCES, PlannedTraining, Start, protocol_of
from lwddpm.kinds.prepare import summary_of
from lwddpm.kinds.saved_model import start_of
from lwddpm.kinds.training_curves import training_curves
from lwddpm.report.data import ComparisonReport, Curves, MeasuredSystem, ReportData, Training
from lwddpm.tracking.rundir import run_folder
from lwddpm.tracking.runs import TrackedRun
from lwddpm.training.schedule import Schedule
from lwddpm.training.stored_model import read_saved_model
from lwddpm.version import git_commit

_CURVE_POINTS = 400


def collect(comparison: Comparison, run_ids: dict[str, str]) -> ReportData:
    """Make every measurement that is not there yet, and put all together.

    Args:
        run_ids: MLflow runs of the trainings, by label.

    Raises:
        JobError: no Fréchet distance could be computed.
    """
    job, plan, dataset = comparison.job, comparison.plan, comparison.dataset
    unavailable = _unavailable_metrics(comparison)
    distance = _distance(job, unavailable)
    measurer = Measurer(comparison, distance)
    measurements = [
        *measurer.systems(),
        *measurer.other_starts(),
        *measurer.baseline(),
        *measurer.variants(),
        *measurer.steps(),
        *measurer.epochs(),
    ]
    trainings = [
        _training(training, run_ids[training.label], measurer.warnings.get(training.label, ()))
        for training in plan.trainings.values()
    ]
    report = ComparisonReport(
        name=job.name,
        run_id=comparison.run.run_id,
        created=comparison.started,
        environment=_environment(),
        dataset=summary_of(dataset) | {"labels": list(dataset.label_names)},
        simulated=dataset.manifest.simulated,
        image_size=dataset.manifest.image_size,
        settings=job.public().model_dump(mode="json", exclude={"tracking", "output"}),
        protocol=job.protocol.model_dump(mode="json", exclude={"inception_weights"}),
        proxy=job.proxy.model_dump(mode="json", exclude={"inception_weights"}),
        distance=distance,
        extractor=NETWORKS[distance],
        weights_sha256=WEIGHTS_SHA256[distance],
        missing=unavailable,
        systems=tuple(_system(job, name, of_system) for name, of_system in plan.systems.items()),
        other_starts=tuple(_system(job, name, plan.systems[name], other) for name, other in measurer.starts().items()),
        gaussian_directions=len(comparison.cache.gaussian.axes),
        trainings=tuple(trainings),
        measurements=tuple(measurements),
        costs=tuple(measurer.costs()),
        sample_sizes=tuple(measurer.sample_sizes()),
        noise=tuple(measurer.noise()),
        snr=snr_curves(measurer.diffusion),
        strips=measurer.strips(),
    )
    curves = Curves()
    for system, (training, *_) in plan.systems.items():
        if system != "ddim":
            curves |= loss_curves(comparison, system, training, run_ids[training.label])
    return ReportData(report=report, curves=Curves(curves), images=measurer.images)


def _unavailable_metrics(comparison: Comparison) -> tuple[Unavailable, ...]:
    """Those that the evaluation of a system could not compute."""
    seed = comparison.job.compare.sampling_seeds[0]
    reasons = {
        unavailable.name: unavailable.reason
        for system, trainings in comparison.plan.systems.items()
        for training in trainings
        for unavailable in comparison.cache.evaluation(
            model_of(training), protocol_of(comparison.job, system, seed)
        ).unavailable
    }
    return tuple(Unavailable(name=name, reason=reason) for name, reason in reasons.items())


def _distance(job: CompareJob, unavailable: tuple[Unavailable, ...]) -> Metric:
    asked = [name for name in DISTANCES if name in job.protocol.metrics]
    reasons = {metric.name: metric.reason for metric in unavailable}
    distance = next((name for name in asked if name not in reasons), None)
    if distance is None:
        raise JobError(
            f"none of {', '.join(asked)} could be computed ({'; '.join(reasons.values())}); "
            "add fd_lite0 to evaluation.metrics"
        )
    return distance


def _system(
    job: CompareJob, name: System, trainings: list[PlannedTraining], other_start: Start | None = None
) -> MeasuredSystem:
    labels = tuple(training.label for training in trainings)
    config = protocol_of(job, name, 0)
    diffusion = trainings[0].job.diffusion
    if diffusion is None:
        return MeasuredSystem(
            name=name, trainings=labels, timesteps=None, sampler=None, inference_steps=None, network_calls=1
        )
    start = other_start or start_of(config, model_of(trainings[0]))
    config = config.model_copy(update={"start": start})
    return MeasuredSystem(
        name=name,
        trainings=labels,
        timesteps=diffusion.num_train_timesteps,
        sampler=config.sampler,
        inference_steps=config.num_inference_steps,
        start=start,
        network_calls=network_calls(diffusion, config, prior_of_start(trainings[0], start)),
        guidance=None if config.guidance == 1 else config.guidance,
        condition_guidance=None if config.condition_guidance == 1 else config.condition_guidance,
    )


def _training(training: PlannedTraining, run_id: str, warnings: tuple[str, ...]) -> Training:
    saved = read_saved_model(model_of(training))
    other = {"kind", "name", "seed", "output", "workers", "tracking", "data", "evaluation", "registry"}
    return Training(
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


def loss_curves(comparison: Comparison, system: str, training: PlannedTraining, run_id: str) -> Curves:
    """Losses of a training as it reported them, thinned to at most 400 means of neighbours."""
    job = training.job
    num_train = comparison.dataset.num("train")
    steps_per_epoch = Schedule.of(job.training, num_train, job.batches_per_step).steps_per_epoch
    reported = training_curves(run_folder(job), TrackedRun(run_id, comparison.run.client))
    curves = Curves()
    for metric in sorted(reported):
        if metric == "val/loss" or (metric.startswith("train/") and "loss" in metric):
            logged = np.array(reported[metric], dtype=float)
            parts = np.array_split(logged, min(_CURVE_POINTS, len(logged)))
            points = np.array([part.mean(0) for part in parts])
            curves[system, metric] = np.column_stack([points[:, 0], points[:, 0] / steps_per_epoch, points[:, 1]])
    return curves


def _environment() -> dict[str, str]:
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    environment = {
        "processor": f"{processor}, {usable_cpus()} CPUs",
        "GPU": ", ".join(devices) or "none",
        "Python": platform.python_version(),
        **{name: version(name) for name in ("lwddpm", "torch", "diffusers", "ray", "mlflow")},
    }
    commit = git_commit()
    return environment | ({"commit": commit} if commit else {})
