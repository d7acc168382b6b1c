"""Sections `training` and `workers`."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from lwddpm.config.model import Beta
from lwddpm.config.rule import RuleBroken
from lwddpm.config.section import (
    LARGEST_INT,
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    is_empty,
    is_natural,
    is_none,
)

ADAM_BETAS = (0.9, 0.999)
# mean and standard deviation of ln sigma: Karras et al. 2024 for 64x64 pixels, Esser et al. 2024 (arXiv:2403.03206)
NORMAL_LOG_SIGMA = {"log_normal": (-0.8, 1.6), "logit_normal": (0.0, 1.0)}
EmaLength = Annotated[float, Field(ge=0.001, le=0.28)]  # 0.2887 is that of a weight that does not depend on the step
Epochs = Annotated[float, Field(gt=0, le=LARGEST_INT)]


class PatchesConfig(Section):
    """Training on crops of the slices for part of the steps: Wang et al. 2023 (arXiv:2304.12526)."""

    share: Fraction = Field(0.5, description="of all optimizer steps, spread evenly; the others see whole slices")
    size: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="side of a crop, as a part of the slice's")
    until: Fraction = Field(
        1, description="part of the training after which all steps see whole slices; share: the crops come first"
    )

    @model_validator(mode="after")
    def _there_are_steps_enough(self) -> "PatchesConfig":
        if self.share > self.until:
            rule = f"of all steps, cannot exceed the part that has crops, until = {self.until:g}"
            raise RuleBroken("share", rule, self.share, "raise until, or lower share")
        return self

    def side(self, image_size: int) -> int:
        """Height and width of a crop, in pixels."""
        return round(self.size * image_size)


class TrainingConfig(Section):
    """How long and how the network is trained. A step is an optimizer step; an epoch is a pass over the slices."""

    incidental = frozenset(
        {
            "log_every_steps",
            "checkpoint_every_epochs",
            "keep_checkpoints",
            "snapshot_epochs",
            "validation_samples",
            # these change the order of floating-point sums, and nothing else
            "grad_accumulation_steps",
            "channels_last",
            "compile",
        }
    )

    lr: Annotated[float, Field(gt=0, le=1)] = Field(5e-4, description="learning rate, after the warm-up")
    lr_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="after the warm-up; cosine falls to 0 at the last step"
    )
    warmup_steps: NonNegativeInt = Field(0, description="steps over which the learning rate rises from 0 to lr")
    optimizer: Literal["adam", "muon"] = Field(
        "adam",
        exclude_if=lambda optimizer: optimizer == "adam",
        description="muon: the momentum of every matrix is orthogonalised, and Adam takes what is no matrix; it is for "
        "rates a few times higher; of GANs adversarial.optimizer",
    )
    adam_betas: tuple[Beta, Beta] = Field(
        ADAM_BETAS,
        exclude_if=lambda betas: betas == ADAM_BETAS,
        description="of Adam: how long it remembers gradients, and their squares; of GANs adversarial.betas",
    )
    batch_size: PositiveInt = Field(
        32, description="slices a step over all workers; each worker's share follows from workers.count"
    )
    grad_accumulation_steps: PositiveInt = Field(
        1, description="parts of a worker's share that are in memory one after the other"
    )
    epochs: PositiveInt | None = Field(None, description="length in epochs; default 250, unless max_steps is given")
    max_steps: PositiveInt | None = Field(None, description="length in optimizer steps, instead of epochs")
    max_grad_norm: PositiveFloat | None = Field(
        1.0, description="gradients are scaled down to this L2 norm; null: they are not"
    )
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="of the moving average of the weights, which is what is sampled; 0: the weights themselves"
    )
    ema_lengths: Annotated[tuple[EmaLength, ...], Field(max_length=8)] = Field(
        (),
        exclude_if=is_empty,
        description="further averages, whose reach is such a share of the training, such as 0.05; of them and that "
        "of ema_decay the one with the least loss on validation slices is kept at the end",
    )
    timestep_sampling: Literal["uniform", "stratified", "log_normal", "logit_normal"] = Field(
        "uniform",
        exclude_if=lambda sampling: sampling == "uniform",
        description="how the slices of a batch get their timesteps: each at random, or one from each of batch_size "
        "equal parts of the chain, so that the loss of a step varies less; log_normal (EDM's) and logit_normal (flow "
        "matching's): one from each of batch_size equally likely parts, with normal ln sigma",
    )
    log_sigma_mean: Annotated[float, Field(ge=-10, le=10)] | None = Field(
        None, exclude_if=is_none, description="of the normal ln sigma; default: -0.8 for log_normal, 0 for logit_normal"
    )
    log_sigma_std: Annotated[float, Field(gt=0, le=10)] | None = Field(
        None, exclude_if=is_none, description="of the normal ln sigma; default: 1.6 for log_normal, 1 for logit_normal"
    )
    loss_weighting: Literal["fixed", "learned"] = Field(
        "fixed",
        exclude_if=lambda weighting: weighting == "fixed",
        description="of the timesteps: as diffusion.min_snr_gamma says, or learned beside the network, so that each "
        "noise level weighs alike",
    )
    augment: Fraction = Field(
        0,
        exclude_if=lambda probability: probability == 0,
        description="probability of each of several changes of a slice (mirrored, shifted, scaled, rotated, brighter), "
        "of which the network is told, so that it draws slices without them; EDM's is 0.12",
    )
    patches: PatchesConfig | None = Field(
        None,
        exclude_if=is_none,
        description="train on crops of the slices for part of the steps, which are cheaper; default: whole slices",
    )
    condition_dropout: Fraction | None = Field(
        None,
        exclude_if=is_none,
        description="with model.conditions: share of the samples that the network is told no condition of, so that it "
        "can draw without, and be guided away from that; of several conditions each is left out as often by itself; "
        "default 0.1",
    )
    sampling: Literal["natural", "balanced"] = Field(
        "natural",
        exclude_if=is_natural,
        description="of the slices: each as often as any other; or, with model.conditions, every class as often as any "
        "other, by the first condition that is a category",
    )
    horizontal_flip: bool = Field(True, description="mirror every other slice left to right, at random")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where the device multiplies it fast"
    )
    channels_last: bool | Literal["auto"] = Field("auto", description="memory layout; auto: where it is faster")
    compile: bool | Literal["auto"] = Field(
        "auto", description="torch.compile; auto: on a GPU, for a training long enough, where there is a C compiler"
    )
    log_every_steps: PositiveInt = Field(20, description="steps whose mean is one point of the logged curves")
    checkpoint_every_epochs: Epochs = Field(1.0, description="epochs, or a fraction of one, between checkpoints")
    keep_checkpoints: PositiveInt = Field(2, description="the latest so many are kept")
    snapshot_epochs: tuple[Epochs, ...] = Field(
        (), description="keep EMA weights and draw a sample grid at these epochs; the last step is always drawn"
    )
    guide_epoch: Epochs | None = Field(
        None,
        exclude_if=is_none,
        description="keep the EMA weights of this epoch with the model as its guide, which evaluation.guidance and "
        "sampling.guidance lead away from; a snapshot too",
    )
    validation_samples: NonNegativeInt = Field(256, description="slices for val/loss; 0: none")

    @model_validator(mode="before")
    @classmethod
    def _length_has_a_default(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("epochs") is None and values.get("max_steps") is None:
            return {**values, "epochs": 250}
        return values

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingConfig":
        if self.epochs is not None and self.max_steps is not None:
            lengths = {"epochs": self.epochs, "max_steps": self.max_steps}
            raise RuleBroken("", "give epochs or max_steps, not both", lengths, "set one of them to null")
        return self

    @model_validator(mode="after")
    def _only_some_samplings_are_normal(self) -> "TrainingConfig":
        for name in ("log_sigma_mean", "log_sigma_std"):
            if getattr(self, name) is not None and self.timestep_sampling not in NORMAL_LOG_SIGMA:
                rule = f"is for timestep_sampling: {' and '.join(NORMAL_LOG_SIGMA)}, not for {self.timestep_sampling}"
                raise RuleBroken(name, rule, getattr(self, name), "leave it out")
        return self

    @model_validator(mode="after")
    def _each_length_once(self) -> "TrainingConfig":
        if len(set(self.ema_lengths)) < len(self.ema_lengths):
            raise RuleBroken("ema_lengths", "each length may stand once", self.ema_lengths, "leave the second out")
        return self

    @model_validator(mode="after")
    def _the_guide_is_an_earlier_network(self) -> "TrainingConfig":
        if self.guide_epoch is not None and self.epochs is not None and self.guide_epoch >= self.epochs:
            raise RuleBroken(
                "guide_epoch",
                f"must be below training.epochs = {self.epochs}",
                self.guide_epoch,
                "the guide is weaker than the model: try the first third",
            )
        return self

    @property
    def log_sigma(self) -> tuple[float, float] | None:
        """Mean and standard deviation of ln sigma in training; None where timesteps are uniform."""
        if self.timestep_sampling not in NORMAL_LOG_SIGMA:
            return None
        mean, std = NORMAL_LOG_SIGMA[self.timestep_sampling]
        given = self.log_sigma_mean
        return mean if given is None else given, self.log_sigma_std or std


class WorkerRange(Section):
    """An elastic worker group: it trains with as many workers as there is room for, and changes with the cluster."""

    min: PositiveInt = Field(1, description="it waits until there is room for so many")
    max: PositiveInt = Field(description="it never grows beyond")

    @model_validator(mode="after")
    def _is_a_range(self) -> "WorkerRange":
        if self.min >= self.max:
            limits = {"min": self.min, "max": self.max}
            raise RuleBroken("", "min < max must hold", limits, "for a fixed number give the number")
        return self


def _number_or_range(value: Any) -> str:
    return "range" if isinstance(value, dict | WorkerRange) else "number"


class WorkersConfig(Section):
    """The processes that share a training, and what each of them reserves of the machine or cluster."""

    count: Annotated[
        Annotated[PositiveInt, Tag("number")] | Annotated[WorkerRange, Tag("range")], Discriminator(_number_or_range)
    ] = Field(1, description="a number, or {min, max}: as many as there is room for")
    use_gpu: bool | Literal["auto"] = Field("auto", description="auto: one GPU a worker where there are enough")
    cpus_per_worker: PositiveInt | None = Field(None, description="default: the CPUs shared equally")
    gpus_per_worker: Annotated[float, Field(gt=0, le=1)] = Field(1, description="less than 1: trials share a GPU")
    max_failures: NonNegativeInt = Field(3, description="worker losses survived before the job fails")

    @model_validator(mode="after")
    def _workers_share_no_gpu(self) -> "WorkersConfig":
        if self.max_count > 1 and self.gpus_per_worker < 1 and self.use_gpu is not False:
            raise RuleBroken(
                "gpus_per_worker",
                f"must be 1 for {self.max_count} workers, for those of one group cannot share a GPU (NCCL)",
                self.gpus_per_worker,
                "leave it out, or set workers.count: 1",
            )
        return self

    @property
    def elastic(self) -> bool:
        """Whether the number of workers changes with the cluster."""
        return isinstance(self.count, WorkerRange)

    @property
    def min_count(self) -> int:
        """The fewest workers that train."""
        return self.count.min if isinstance(self.count, WorkerRange) else self.count

    @property
    def max_count(self) -> int:
        """The most workers that train."""
        return self.count.max if isinstance(self.count, WorkerRange) else self.count
