"""Sections `training` and `workers`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lwddpm.config.section import PositiveInt, Section


class TrainingConfig(Section):
    """`batch_size` is global: what each worker sees is derived."""

    lr: Annotated[float, Field(gt=0, le=1)] = 5e-4
    lr_schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    batch_size: PositiveInt = 32
    grad_accumulation_steps: PositiveInt = 1
    epochs: PositiveInt | None = Field(None, description="default 250, unless max_steps is given")
    max_steps: PositiveInt | None = Field(None, description="optimizer steps, instead of epochs")
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    horizontal_flip: bool = True
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    compile: bool | Literal["auto"] = "auto"
    log_every_steps: PositiveInt = 20
    checkpoint_every_epochs: Annotated[float, Field(gt=0)] = 1.0
    keep_checkpoints: PositiveInt = 2
    snapshot_epochs: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="keep EMA weights and draw a sample grid at these epochs; the last step is always drawn"
    )
    validation_samples: Annotated[int, Field(ge=0)] = Field(256, description="slices for val/loss; 0: none")

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingConfig":
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError(
                f"give epochs or max_steps, not both, got {self.epochs} and {self.max_steps}; set one of them to null"
            )
        if self.epochs is None and self.max_steps is None:
            object.__setattr__(self, "epochs", 250)
        return self


class WorkerRange(Section):
    """An elastic worker group: it trains with as many workers as there is room for, and changes with the cluster."""

    min: PositiveInt = 1
    max: PositiveInt

    @model_validator(mode="after")
    def _is_a_range(self) -> "WorkerRange":
        if self.min >= self.max:
            raise ValueError(
                f"workers.count: min < max must hold, got {self.min} and {self.max}; for a fixed number give the number"
            )
        return self


class WorkersConfig(Section):
    count: PositiveInt | WorkerRange = Field(1, description="a number, or {min, max}: as many as there is room for")
    use_gpu: bool | Literal["auto"] = Field("auto", description="auto: one GPU a worker where there are enough")
    cpus_per_worker: Annotated[int, Field(ge=1)] | None = Field(None, description="default: the CPUs shared equally")
    gpus_per_worker: Annotated[float, Field(gt=0, le=1)] = Field(1, description="less than 1: trials share a GPU")
    max_failures: Annotated[int, Field(ge=0)] = Field(3, description="worker losses survived before the job fails")

    @model_validator(mode="after")
    def _workers_share_no_gpu(self) -> "WorkersConfig":
        if self.max_count > 1 and self.gpus_per_worker < 1 and self.use_gpu is not False:
            raise ValueError(
                f"workers.gpus_per_worker: workers of one group cannot share a GPU (NCCL), so it must be 1 for "
                f"{self.max_count} workers, got {self.gpus_per_worker:g}; leave it out, or set workers.count: 1"
            )
        return self

    @property
    def elastic(self) -> bool:
        return isinstance(self.count, WorkerRange)

    @property
    def min_count(self) -> int:
        return self.count.min if isinstance(self.count, WorkerRange) else self.count

    @property
    def max_count(self) -> int:
        return self.count.max if isinstance(self.count, WorkerRange) else self.count
