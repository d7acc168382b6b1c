"""Jobs about one dataset or model."""

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from lwddpm import families
from lwddpm.config.data import DataConfig
from lwddpm.config.evaluation import EvaluationConfig, SamplingConfig, check_steps
from lwddpm.config.model import GAN_SIZES, AdversarialConfig, DiffusionConfig, ModelConfig, _is_none
from lwddpm.config.section import PositiveInt, Section, Seed
from lwddpm.config.training import TrainingConfig, WorkersConfig


class RegistryConfig(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] = "lw-ddpm"
    alias: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = "candidate"


class TrackingConfig(Section):
    uri: str | None = Field(None, description="default: MLFLOW_TRACKING_URI, else SQLite in the working folder")
    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$")] = "lw-ddpm"


class Job(Section):
    """What every kind of job has."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Seed = 0
    output: str = Field("runs", description="folder for checkpoints and results; shared storage on a cluster")
    offline: bool = Field(False, description="fetch nothing: only the tracking store and Ray cluster named are reached")
    workers: WorkersConfig = WorkersConfig()
    tracking: TrackingConfig = TrackingConfig()


class PrepareJob(Job):
    kind: Literal["prepare"]
    data: DataConfig


class TrainingJob(Job):
    """What training one model takes, and searching over many: everything but the kind."""

    data: DataConfig
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig | None = Field(DiffusionConfig(), description="null for GANs")
    adversarial: AdversarialConfig | None = Field(None, exclude_if=_is_none, description="GANs only")
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig | None = EvaluationConfig()
    registry: RegistryConfig | None = RegistryConfig()

    @model_validator(mode="before")
    @classmethod
    def _settings_follow_family(cls, values: Any) -> Any:
        return families.settle(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "TrainingJob":
        size, factor = self.data.image_size, self.model.downsampling
        if self.adversarial is not None:
            self.adversarial.check(self.model.family)
            if size not in GAN_SIZES:
                raise ValueError(
                    f"data.image_size: must be a power of two from {GAN_SIZES[0]} to {GAN_SIZES[-1]} for "
                    f"{self.model.family}, got {size}"
                )
        elif size % factor:
            near = max(16, round(size / factor) * factor)
            raise ValueError(
                f"data.image_size: must be divisible by {factor} for {len(self.model.dim_mults)} levels in "
                f"model.dim_mults, got {size}; try {near} or fewer levels"
            )
        batch, shards = self.training.batch_size, self.workers.max_count * self.training.grad_accumulation_steps
        if self.workers.elastic and batch < shards:
            raise ValueError(
                f"training.batch_size: {batch} images (global) must be at least workers.count.max x "
                f"grad_accumulation_steps = {shards}; raise it, or lower workers.count.max"
            )
        if not self.workers.elastic and batch % shards:
            low, high = batch // shards * shards, -(-batch // shards) * shards
            raise ValueError(
                f"training.batch_size: {batch} images (global) must divide evenly over workers.count x "
                f"grad_accumulation_steps = {shards}; try {high if low == 0 else f'{low} or {high}'}"
            )
        if self.evaluation is not None and self.diffusion is not None:
            check_steps(self.evaluation, self.diffusion, "evaluation")
        return self

    @property
    def batches_per_step(self) -> int:
        """Batches of slices that one optimizer step (of a GAN: of its generator) takes."""
        return 1 if self.adversarial is None else self.adversarial.n_critic

    def training_digest(self) -> str:
        """Identifies what is trained: runs of the same digest continue each other, on any number of workers."""
        parts = {
            "seed": self.seed,
            "data": self.data.dataset_path,
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
        }
        sections = {"diffusion": self.diffusion, "adversarial": self.adversarial}
        parts |= {name: section.model_dump(mode="json") for name, section in sections.items() if section is not None}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


class TrainJob(TrainingJob):
    kind: Literal["train"]


def _is_a_model_uri(uri: str) -> str:
    if uri.startswith("models:") and not re.fullmatch(r"models:/[^/@]+(@[^/@]+|/[0-9]+)", uri):
        raise ValueError(f"must be models:/NAME@ALIAS, models:/NAME/VERSION or a folder with a saved model, got {uri}")
    return uri


ModelUri = Annotated[
    str,
    Field(description="models:/NAME@ALIAS, models:/NAME/VERSION or a folder with a saved model"),
    AfterValidator(_is_a_model_uri),
]


class EvaluateJob(Job):
    kind: Literal["evaluate"]
    model_uri: ModelUri
    data: DataConfig
    evaluation: EvaluationConfig = EvaluationConfig()


class SampleJob(Job):
    kind: Literal["sample"]
    model_uri: ModelUri
    count: PositiveInt = 64
    out: str = "samples"
    sampling: SamplingConfig = SamplingConfig()
