"""What a comparison trains and how it measures it; every training is an ordinary job, equal ones are made once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lwddpm import families
from lwddpm.config import (
    ONE_PASS,
    UNGUIDED,
    AblationConfig,
    CompareJob,
    EvaluationConfig,
    Metric,
    RuleBroken,
    System,
    TrainJob,
    check_guide,
)
from lwddpm.errors import ConfigError
from lwddpm.jobfile import flattened, set_value, validate_job
from lwddpm.training.schedule import Schedule

DISTANCES: tuple[Metric, ...] = ("fid", "fd_lite0")  # systems are ranked by the first that can be computed
Start = Literal["gaussian", "noise"]
ABLATIONS = ("loss", "attention", "schedule", "prediction_type")
_FAMILY_OF_ATTENTION = {attention: family for family, attention in families.ATTENTION.items()}


@dataclass(frozen=True)
class PlannedTraining:
    """A training, or a repeat of one with another seed.

    Attributes:
        label: unique name, such as `lw_ddpm` or `lw_ddpm-loss-l1`.
    """

    label: str
    system: System
    seed: int
    job: TrainJob


@dataclass(frozen=True)
class PlannedVariant:
    """A row of an ablation: the variant's name and the training that it is measured on."""

    ablation: str
    system: System
    label: str
    training: PlannedTraining


@dataclass(frozen=True)
class Plan:
    """All trainings in the order in which they run, by training digest.

    Attributes:
        systems: trainings of every system, one for each seed; those of ddim are ddpm's.
        variants: rows of the ablations.
    """

    trainings: dict[str, PlannedTraining]
    systems: dict[System, list[PlannedTraining]]
    variants: list[PlannedVariant]


def check_compare(job: CompareJob) -> None:
    """What can be known to be wrong before anything starts.

    Raises:
        ConfigError: an override that does not fit a system or a variant, or no Fréchet distance to compare by.
    """
    if not set(DISTANCES) & set(job.protocol.metrics):
        raise ConfigError(
            f"evaluation.metrics: a comparison needs fid or fd_lite0, got {list(job.protocol.metrics)}; add one"
        )
    plan = make_plan(job, num_train=10**9)
    for system in job.compare.systems:
        protocol = protocol_of(job, system, 0)
        if system not in families.ADVERSARIAL:
            _check_guide(protocol, plan.systems[system][0], f"compare.overrides.{system}: evaluation")
    for variant in plan.variants:
        if variant.system not in families.ADVERSARIAL:
            _check_guide(job.proxy, variant.training, f"compare.ablations.{variant.ablation}: evaluation")


def _check_guide(config: EvaluationConfig, training: PlannedTraining, section: str) -> None:
    try:
        check_guide(config, training.job.training.guide_epoch, section, training.job.training.condition_dropout)
    except RuleBroken as broken:
        raise ConfigError(str(broken)) from None


def make_plan(job: CompareJob, num_train: int) -> Plan:
    """Plan the trainings of a comparison.

    Args:
        num_train: slices of the training split; decides at which steps snapshots are taken.

    Raises:
        ConfigError: an override that does not fit; names the system or the ablation.
    """
    trainings: dict[str, PlannedTraining] = {}

    def planned(label: str, system: System, seed: int, overrides: Mapping[str, Any], where: str) -> PlannedTraining:
        full = label if seed == seeds_of(job)[0] else f"{label}-seed{seed}"
        train = _train_job(job, full, system, seed, overrides, num_train, where)
        return trainings.setdefault(train.training_digest(), PlannedTraining(full, system, seed, train))

    systems: dict[System, list[PlannedTraining]] = {}
    for system in job.compare.systems:
        trained: System = "ddpm" if system == "ddim" else system
        where = f"compare.overrides.{trained}"
        systems[system] = [planned(trained, trained, seed, {}, where) for seed in seeds_of(job)]
    variants = []
    for name in ABLATIONS:
        ablation: AblationConfig | None = getattr(job.compare.ablations, name)
        for system in ablation.systems if ablation else ():
            for overrides in ablation.variants if ablation else ():
                label = "-".join(str(value) for value in flattened(overrides).values())
                for seed in seeds_of(job):
                    training = planned(
                        f"{system}-{name}-{label}",
                        system,
                        seed,
                        flattened(job.compare.ablation_overrides) | flattened(overrides),
                        f"compare.ablations.{name}",
                    )
                    variants.append(PlannedVariant(name, system, label, training))
    return Plan(trainings, systems, variants)


def seeds_of(job: CompareJob) -> tuple[int, ...]:
    return job.compare.seeds or (job.seed,)


def unguided(config: EvaluationConfig) -> EvaluationConfig:
    """The settings for curves over steps and epochs, whose axes stand for network calls and for one network."""
    return config.model_copy(update=UNGUIDED)


def protocol_of(job: CompareJob, system: System, sampling_seed: int) -> EvaluationConfig:
    """How a system is sampled and measured."""
    overrides: dict[str, Any] = {"seed": sampling_seed}
    if system == "ddim":
        overrides |= {"sampler": "ddim", "num_inference_steps": job.compare.ddim_steps}
    if system in families.ADVERSARIAL:  # nothing is denoised
        metrics = tuple(name for name in job.protocol.metrics if name != "ssim_reconstruction")
        overrides |= {
            **ONE_PASS,
            **UNGUIDED,
            "timestep_spacing": "auto",
            "eta": 0.0,
            "reconstruction_timestep": 50,
            "metrics": metrics,
        }
    own = {
        key.removeprefix("evaluation."): value
        for key, value in flattened(job.compare.overrides.get(system, {})).items()
        if key.startswith("evaluation.")
    }
    return EvaluationConfig.model_validate(job.protocol.model_dump() | overrides | own)


def from_other_start(config: EvaluationConfig, start: Start) -> EvaluationConfig:
    """The protocol of a system with the start that it does not sample from; reconstructing knows no start."""
    metrics = tuple(name for name in config.metrics if name != "ssim_reconstruction")
    return config.model_copy(update={"start": start, "calibrate": False, "metrics": metrics})


def without_network(config: EvaluationConfig) -> EvaluationConfig:
    """The protocol for slices of the Gaussian baseline, which draws in one pass and denoises nothing."""
    metrics = tuple(name for name in config.metrics if name != "ssim_reconstruction")
    return EvaluationConfig.model_validate(
        config.model_dump(exclude={"start", "calibrate", "timestep_spacing", "precision", *UNGUIDED})
        | {**ONE_PASS, "eta": 0.0, "reconstruction_timestep": 50, "metrics": metrics}
    )


def _train_job(
    job: CompareJob, label: str, system: System, seed: int, overrides: Mapping[str, Any], num_train: int, where: str
) -> TrainJob:
    """The job of one training, neither evaluated nor registered."""
    family = "lw_ddpm" if system == "recipe" else system
    merged = {"model.family": family, **flattened(job.compare.overrides.get(system, {})), **overrides}
    merged = {key: value for key, value in merged.items() if not key.startswith("evaluation.")}
    values = job.model_dump(mode="json", exclude={"compare"})
    values |= {"kind": "train", "name": f"{job.name}-{label}", "seed": seed, "evaluation": None, "registry": None}
    merged = _with_consequences(merged)
    values = families.rebased(values, merged["model.family"])
    for key, value in merged.items():
        set_value(values, key, value)
    train = validate_job(values, where)
    assert isinstance(train, TrainJob)
    schedule = Schedule.of(train.training, num_train, train.batches_per_step)
    values["training"]["snapshot_epochs"] = _snapshots(job, schedule)
    train = validate_job(values, where)
    assert isinstance(train, TrainJob)
    return train


def as_system(job: CompareJob, system: System, training: PlannedTraining) -> TrainJob:
    """The training of a system, with its evaluation and its name in the registry."""
    evaluation = protocol_of(job, system, job.compare.sampling_seeds[0])
    registry = job.registry and job.registry.model_copy(update={"name": f"{job.registry.name}-{system}"})
    return training.job.model_copy(update={"evaluation": evaluation, "registry": registry})


def _snapshots(job: CompareJob, schedule: Schedule) -> list[float]:
    """Epochs of this training at the same fractions of its length as the wanted ones have of the last."""
    *earlier, last = job.compare.snapshot_epochs or (1,)
    steps = {max(1, round(epoch / last * schedule.num_steps)) for epoch in earlier}
    return [step / schedule.steps_per_epoch for step in sorted(steps) if step < schedule.num_steps]


def _with_consequences(overrides: dict[str, Any]) -> dict[str, Any]:
    """Overrides with what follows from them, so that equal networks get equal settings.

    The family follows the attention; a training has a length in epochs or in steps.
    """
    complete = dict(overrides)
    if complete.get("model.attention") in _FAMILY_OF_ATTENTION:
        complete["model.family"] = _FAMILY_OF_ATTENTION[complete.pop("model.attention")]
    for given, other in (("max_steps", "epochs"), ("epochs", "max_steps")):
        if f"training.{given}" in overrides:
            complete.setdefault(f"training.{other}", None)
    return complete
