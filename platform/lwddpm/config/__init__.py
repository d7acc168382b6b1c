"""The job file: what a job may say, its defaults (the paper's recipe) and its rules.

One frozen pydantic model for each section; unknown keys are errors. The descriptions of the fields are the reference of
the job file, the bounds of their types are the ranges. `jobfile.load_job` is the only way in. Defaults follow Peng et
al. 2024 where the paper gives a value.
"""

from typing import get_args

from lwddpm.config.audit import AuditConfig, AuditJob, Part
from lwddpm.config.class_measures import CLASS_MEASURES
from lwddpm.config.compare import AblationConfig, AblationsConfig, CompareConfig, CompareJob, Overrides, System
from lwddpm.config.consistency import ConsistencyConfig, ModelUri
from lwddpm.config.data import PHANTOM, DataConfig, SlicesConfig
from lwddpm.config.edit import EditConfig
from lwddpm.config.evaluation import EvaluationConfig, Metric
from lwddpm.config.job import EvaluateJob, Job, PrepareJob, SampleJob
from lwddpm.config.model import GAN_SIZES, AdversarialConfig, DiffusionConfig, ModelConfig
from lwddpm.config.rule import RuleBroken, shown
from lwddpm.config.sampling import (
    EVALUATED,
    NO_PRESET,
    DiffusionSampler,
    PresetName,
    Sampler,
    SamplingConfig,
    SamplingT,
)
from lwddpm.config.sampling_checks import check_asked, check_guide, check_steps, leads_away_from, one_pass
from lwddpm.config.search import (
    COPIED_OBJECTIVE,
    DENOISING_OBJECTIVES,
    NEIGHBOUR_OBJECTIVES,
    STATIC_OBJECTIVES,
    Objective,
    SearchConfig,
    SearchJob,
)
from lwddpm.config.section import Fraction, PositiveInt, Section, Seed
from lwddpm.config.tracking import RegistryConfig, TrackingConfig
from lwddpm.config.tradeoff import TradeoffConfig, TradeoffJob
from lwddpm.config.train_job import TrainingJob, TrainJob
from lwddpm.config.training import PatchesConfig, TrainingConfig, WorkerRange, WorkersConfig
from lwddpm.config.utility import Learner, UtilityConfig
from lwddpm.families import ONE_PASS, UNGUIDED, Family

AnyJob = PrepareJob | TrainJob | SearchJob | CompareJob | EvaluateJob | SampleJob | TradeoffJob | AuditJob

# What stands as `kind` in a job file, and the model that validates the rest.
KINDS: dict[str, type[AnyJob]] = {get_args(job.model_fields["kind"].annotation)[0]: job for job in get_args(AnyJob)}

__all__ = [
    "CLASS_MEASURES",
    "COPIED_OBJECTIVE",
    "DENOISING_OBJECTIVES",
    "EVALUATED",
    "GAN_SIZES",
    "KINDS",
    "NEIGHBOUR_OBJECTIVES",
    "NO_PRESET",
    "ONE_PASS",
    "PHANTOM",
    "STATIC_OBJECTIVES",
    "UNGUIDED",
    "AblationConfig",
    "AblationsConfig",
    "AdversarialConfig",
    "AnyJob",
    "AuditConfig",
    "AuditJob",
    "CompareConfig",
    "CompareJob",
    "ConsistencyConfig",
    "DataConfig",
    "DiffusionConfig",
    "DiffusionSampler",
    "EditConfig",
    "EvaluateJob",
    "EvaluationConfig",
    "Family",
    "Fraction",
    "Job",
    "Learner",
    "Metric",
    "ModelConfig",
    "ModelUri",
    "Objective",
    "Overrides",
    "Part",
    "PatchesConfig",
    "PositiveInt",
    "PrepareJob",
    "PresetName",
    "RegistryConfig",
    "RuleBroken",
    "SampleJob",
    "Sampler",
    "SamplingConfig",
    "SamplingT",
    "SearchConfig",
    "SearchJob",
    "Section",
    "Seed",
    "SlicesConfig",
    "System",
    "TrackingConfig",
    "TradeoffConfig",
    "TradeoffJob",
    "TrainJob",
    "TrainingConfig",
    "TrainingJob",
    "UtilityConfig",
    "WorkerRange",
    "WorkersConfig",
    "check_asked",
    "check_guide",
    "check_steps",
    "leads_away_from",
    "one_pass",
    "shown",
]
