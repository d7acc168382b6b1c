"""The job file: what a job may say, its defaults (the paper's recipe) and its rules.

One frozen pydantic model per section; unknown keys are errors. `jobfile.load_job` is the only way in.
Defaults follow Peng et al. 2024 where the paper gives a value.
"""

from lwddpm.config.compare import AblationConfig, AblationsConfig, CompareConfig, CompareJob, Overrides, System
from lwddpm.config.data import PHANTOM, DataConfig
from lwddpm.config.evaluation import (
    ONE_PASS,
    EvaluationConfig,
    Metric,
    S,
    Sampler,
    SamplingConfig,
    check_steps,
    one_pass,
)
from lwddpm.config.job import (
    EvaluateJob,
    Job,
    ModelUri,
    PrepareJob,
    RegistryConfig,
    SampleJob,
    TrackingConfig,
    TrainingJob,
    TrainJob,
)
from lwddpm.config.model import GAN_SIZES, AdversarialConfig, DiffusionConfig, Family, ModelConfig
from lwddpm.config.search import DENOISING_OBJECTIVES, STATIC_OBJECTIVES, Objective, SearchConfig, SearchJob
from lwddpm.config.section import Fraction, PositiveInt, Section, Seed
from lwddpm.config.training import TrainingConfig, WorkerRange, WorkersConfig

AnyJob = PrepareJob | TrainJob | SearchJob | CompareJob | EvaluateJob | SampleJob

KINDS: dict[str, type[AnyJob]] = {
    "prepare": PrepareJob,
    "train": TrainJob,
    "search": SearchJob,
    "compare": CompareJob,
    "evaluate": EvaluateJob,
    "sample": SampleJob,
}


__all__ = [
    "DENOISING_OBJECTIVES",
    "GAN_SIZES",
    "KINDS",
    "ONE_PASS",
    "PHANTOM",
    "STATIC_OBJECTIVES",
    "AblationConfig",
    "AblationsConfig",
    "AdversarialConfig",
    "AnyJob",
    "CompareConfig",
    "CompareJob",
    "DataConfig",
    "DiffusionConfig",
    "EvaluateJob",
    "EvaluationConfig",
    "Family",
    "Fraction",
    "Job",
    "Metric",
    "ModelConfig",
    "ModelUri",
    "Objective",
    "Overrides",
    "PositiveInt",
    "PrepareJob",
    "RegistryConfig",
    "S",
    "SampleJob",
    "Sampler",
    "SamplingConfig",
    "SearchConfig",
    "SearchJob",
    "Section",
    "Seed",
    "System",
    "TrackingConfig",
    "TrainJob",
    "TrainingConfig",
    "TrainingJob",
    "WorkerRange",
    "WorkersConfig",
    "check_steps",
    "one_pass",
]
