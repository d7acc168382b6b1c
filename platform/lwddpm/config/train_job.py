"""The job that trains a model, and what searches and comparisons share with it."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from lwddpm import families
from lwddpm.config.consistency import ConsistencyConfig
from lwddpm.config.data import DataConfig
from lwddpm.config.evaluation import EvaluationConfig
from lwddpm.config.job import Job
from lwddpm.config.model import GAN_SIZES, AdversarialConfig, DiffusionConfig, ModelConfig
from lwddpm.config.rule import RuleBroken
from lwddpm.config.sampling_checks import check_guide, check_no_preset, check_steps
from lwddpm.config.section import hex_digest, is_none
from lwddpm.config.tracking import RegistryConfig
from lwddpm.config.training import TrainingConfig

MOST_CHANNELS = 2**16  # of a level: its 3x3 convolution alone has 39 billion parameters
CONDITION_DROPOUT = 0.1  # Ho & Salimans 2022 (arXiv:2207.12598), section 4


class TrainingJob(Job):
    """What training one model takes, and searching over many: everything but the kind."""

    unrecorded = frozenset({"registry"})

    data: DataConfig
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig | None = Field(DiffusionConfig(), description="null for GANs")
    adversarial: AdversarialConfig | None = Field(None, exclude_if=is_none, description="GANs only")
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig | None = Field(EvaluationConfig(), description="null: the model is not evaluated")
    registry: RegistryConfig | None = Field(RegistryConfig(), description="null: the model is not registered")

    @model_validator(mode="before")
    @classmethod
    def _settings_follow_family(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        unused = families.unused(values)
        if unused:
            flags = " ".join(f"--set {key}=null" for key in unused)
            rule = f"{families.family_of(values)} has no use for {', '.join(unused)}"
            raise RuleBroken("model.family", rule, remedy=f"leave out, or {flags}")
        return _with_coordinates(_with_dropout(families.completed(values)))

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "TrainingJob":
        if self.adversarial is not None:
            self.adversarial.check(self.model.family)
        if self.model.widest > MOST_CHANNELS:
            rule = f"times the largest of model.dim_mults must be at most {MOST_CHANNELS} channels"
            raise RuleBroken("model.dim", rule, self.model.dim, "the paper's is 80, its largest multiple 4")
        self._check_image_size()
        self._check_batch_size()
        self._check_conditions()
        self._check_patches()
        if self.training.loss_weighting == "learned" and self.diffusion and self.diffusion.min_snr_gamma is not None:
            rule = "learned weights take the place of those of diffusion.min_snr_gamma"
            raise RuleBroken("training.loss_weighting", rule, "learned", "set one of the two to null")
        if self.training.ema_lengths and self.data.splits[1] == 0:
            rule = f"choosing takes validation slices, and data.splits is {list(self.data.splits)}"
            raise RuleBroken("training.ema_lengths", rule, remedy="give validation a share, or leave the lengths out")
        if self.evaluation is not None:
            check_no_preset(self.evaluation, "evaluation")
        if self.evaluation is not None and self.diffusion is not None:
            check_steps(self.evaluation, self.diffusion, "evaluation")
            check_guide(self.evaluation, self.training.guide_epoch, "evaluation", self.training.condition_dropout)
        if self.registry is not None and self.registry.choose == "best" and not self.training.snapshot_epochs:
            rule = "best chooses among the last model and snapshots, and there are none"
            raise RuleBroken(
                "registry.choose", rule, "best", "list epochs in training.snapshot_epochs, or leave it out"
            )
        guided = self.evaluation is not None and self.evaluation.guidance != 1
        if guided and self.registry is not None and self.registry.choose == "best":
            rule = "snapshots have no guide, and evaluation.guidance asks for one"
            raise RuleBroken("registry.choose", rule, "best", "leave one of the two out")
        return self

    def _check_image_size(self) -> None:
        size, factor, patch = self.data.image_size, self.model.downsampling, self.model.patch
        if self.adversarial is not None:
            if size not in GAN_SIZES:
                limits = f"{GAN_SIZES[0]} to {GAN_SIZES[-1]}"
                raise RuleBroken(
                    "data.image_size", f"must be a power of two from {limits} for {self.model.family}", size
                )
        elif size % factor:
            near = max(16, round(size / factor) * factor)
            raise RuleBroken(
                "data.image_size",
                f"must be divisible by {factor} for {len(self.model.dim_mults)} levels in model.dim_mults"
                + (f" of patches of {patch} x {patch}" if patch > 1 else ""),
                size,
                f"try {near} or fewer levels",
            )

    def _check_batch_size(self) -> None:
        batch, shards = self.training.batch_size, self.workers.max_count * self.training.grad_accumulation_steps
        if self.workers.elastic and batch < shards:
            raise RuleBroken(
                "training.batch_size",
                f"must be at least workers.count.max x grad_accumulation_steps = {shards} images (global)",
                batch,
                "raise it, or lower workers.count.max",
            )
        if not self.workers.elastic and batch % shards:
            low, high = batch // shards * shards, -(-batch // shards) * shards
            raise RuleBroken(
                "training.batch_size",
                f"images (global) must divide evenly over workers.count x grad_accumulation_steps = {shards}",
                batch,
                f"try {high if low == 0 else f'{low} or {high}'}",
            )

    def _check_patches(self) -> None:
        patches, size, factor = self.training.patches, self.data.image_size, self.model.downsampling
        if patches is None or patches.share == 0:
            return
        if not self.model.coordinates:
            rule = "must be true with training.patches, so that the network knows where in the slice a crop lies"
            raise RuleBroken("model.coordinates", rule, False, "leave it out, or set training.patches: null")
        side = patches.side(size)
        if side % factor or not 0 < side < size:
            fitting = sorted(range(factor, size, factor), key=lambda other: abs(other - side))[:2]
            raise RuleBroken(
                "training.patches.size",
                f"crops of {size} pixels a side must be smaller, and divisible by {factor} as the network halves them, "
                f"which {side} is not",
                patches.size,
                f"try {' or '.join(f'{other / size:g}' for other in fitting)}" if fitting else "take fewer levels",
            )

    def _check_conditions(self) -> None:
        of_volumes = [name for name in self.model.conditions if name != "label"]
        if of_volumes and not self.data.reads_volumes and self.data.phantom != "volumes":
            raise RuleBroken(
                "model.conditions",
                f"{of_volumes[0]} is a column of volumes (data.format: nifti or dicom); images have label alone",
                list(self.model.conditions),
                "leave it out",
            )
        if self.model.conditions:
            return
        for name in ("condition_dropout", "sampling"):
            if self.training.model_dump(include={name}):
                raise RuleBroken(
                    f"training.{name}",
                    "is for models with conditions",
                    getattr(self.training, name),
                    "leave it out, or set model.conditions: [label]",
                )
        for name in ("conditions", "like"):
            if self.evaluation is not None and self.evaluation.model_dump(include={name}):
                raise RuleBroken(
                    f"evaluation.{name}",
                    "is for models with conditions",
                    getattr(self.evaluation, name),
                    "leave it out, or set model.conditions: [label]",
                )

    @property
    def batches_per_step(self) -> int:
        """Batches of slices that one optimizer step (of a GAN: of its generator) takes."""
        return 1 if self.adversarial is None else self.adversarial.n_critic

    def training_settings(self) -> dict[str, Any]:
        """The settings that decide what is learnt, as JSON values: trainings with the same ones continue each other."""
        sections = {
            "model": self.model,
            "training": self.training,
            "diffusion": self.diffusion,
            "adversarial": self.adversarial,
        }
        settings = {name: section.essentials() for name, section in sections.items() if section is not None}
        settings["training"].pop("guide_epoch", None)  # decides what is kept with the model, and how that may be drawn
        return {"seed": self.seed, "data": self.data.dataset_path, **settings}

    def training_digest(self) -> str:
        """8 hex digits of what is learnt, by which run folders are named."""
        return hex_digest(self.training_settings(), 8)

    def earlier_training_digest(self) -> str:
        """That of version 0.1.0, which counted all of `training`: its folders and studies are known by it."""
        return hex_digest(
            self.training_settings() | {"training": self.training.model_dump(mode="json", exclude={"guide_epoch"})}, 8
        )


def _with_dropout(values: dict[str, Any]) -> dict[str, Any]:
    """A conditional training's values with `condition_dropout`, where they give none."""
    model, training = values.get("model"), values.get("training") or {}
    conditional = isinstance(model, Mapping | ModelConfig) and dict(model).get("conditions")
    if not conditional or not isinstance(training, Mapping) or training.get("condition_dropout") is not None:
        return values
    return {**values, "training": {**training, "condition_dropout": CONDITION_DROPOUT}}


def _with_coordinates(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a training on crops with `model.coordinates`, where they do not say whether it has them."""
    model, training = values.get("model") or {}, values.get("training")
    patches = training.get("patches") if isinstance(training, Mapping) else None
    on_crops = isinstance(patches, Mapping) and patches.get("share") != 0
    if not on_crops or not isinstance(model, Mapping) or model.get("coordinates") is not None:
        return values
    return {**values, "model": {**model, "coordinates": True}}


class TrainJob(TrainingJob):
    """Trains one model, evaluates it and registers it."""

    kind: Literal["train"]
    consistency: ConsistencyConfig | None = Field(
        None,
        exclude_if=is_none,
        description="tunes a trained diffusion model to draw in one to four calls; default: no",
    )

    @model_validator(mode="after")
    def _tuning_has_a_loss_of_its_own(self) -> "TrainJob":
        if self.consistency is None:
            return self
        if self.diffusion is None:
            rule = f"is for diffusion models, not for {self.model.family}"
            raise RuleBroken("consistency", rule, remedy="leave it out")
        for key, value, fitting in (
            ("training.timestep_sampling", self.training.timestep_sampling, ("uniform", "stratified")),
            ("training.loss_weighting", self.training.loss_weighting, ("fixed",)),
            ("diffusion.min_snr_gamma", self.diffusion.min_snr_gamma, (None,)),
            ("training.patches", self.training.patches, (None,)),
        ):
            if value not in fitting:
                rule = f"with consistency tuning, which has a loss of its own, must be {' or '.join(map(str, fitting))}"
                raise RuleBroken(key, rule, value, "leave it out")
        if self.consistency.guidance is not None and self.training.augment > 0:
            rule = "must be 0 with consistency.guidance: a teacher's file does not tell it of changes"
            raise RuleBroken("training.augment", rule, self.training.augment, "leave it out")
        return self

    def training_settings(self) -> dict[str, Any]:
        settings = super().training_settings()
        return settings if self.consistency is None else settings | {"consistency": self.consistency.essentials()}
