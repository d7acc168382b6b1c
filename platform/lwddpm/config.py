"""The job file: what a job may say, its defaults (the paper's recipe) and its rules.

One frozen pydantic model per section; unknown keys are errors. `jobfile.load_job` is the only way in.
Defaults follow Peng et al. 2024 where the paper gives a value.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, field_validator, model_validator

from lwddpm import families

Family = Literal["lw_ddpm", "ddpm", "gan", "wgan", "lsgan"]
Sampler = Literal["ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++", "generator"]  # the last: GANs, one pass
PHANTOM = "phantom"  # the `data.source` that is simulated instead of read
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
PositiveInt = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of every section: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def digest(self) -> str:
        """12 hex digits that change whenever any value changes."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


class DataConfig(Section):
    """Where slices come from and how they become a dataset."""

    source: str = Field(description="folder of images in class/ sub-folders, or 'phantom' (simulated)")
    path: str | None = Field(None, description="where the prepared dataset lies; default: datasets/<derived>")
    image_size: Annotated[int, Field(ge=16, le=1024)] = 128
    fit: Literal["pad", "stretch"] = Field("pad", description="how a non-square image becomes square")
    crop_background: bool = Field(False, description="crop the dark border around the head first")
    splits: tuple[Fraction, Fraction, Fraction] = Field((0.8, 0.1, 0.1), description="train, validation, test")
    subject_pattern: str | None = Field(None, description="regex on the relative path; group 1 is the subject_id")
    max_rejected_fraction: Fraction = Field(0.05, description="more unreadable files than this fail the job")
    max_pixels: PositiveInt = Field(64_000_000, description="larger images are rejected unread")
    phantom_count: PositiveInt = Field(1000, description="number of simulated slices when source is 'phantom'")
    seed: Seed = Field(0, description="decides the splits and the phantoms")

    @field_validator("splits")
    @classmethod
    def _splits_sum_to_one(cls, splits: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(splits) - 1) > 1e-6 or splits[0] <= 0:
            raise ValueError(f"train, validation, test must sum to 1 with train > 0, got {list(splits)}")
        return splits

    @field_validator("subject_pattern")
    @classmethod
    def _pattern_has_a_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
            if groups < 1:
                raise ValueError(f"needs one group around the subject, such as '(sub-[0-9]+)', got {pattern!r}")
        return pattern

    @property
    def dataset_path(self) -> str:
        """`path`, or a default that changes with every setting that changes the dataset."""
        if self.path is not None:
            return self.path
        source = self.source if self.source == PHANTOM else str(Path(self.source).absolute())
        stem = re.sub(r"[^a-z0-9]+", "-", Path(source).name.lower()).strip("-") or "dataset"
        settings = json.dumps([source, self.content_settings()], sort_keys=True)
        return f"datasets/{stem}-{self.image_size}px-{hashlib.sha256(settings.encode()).hexdigest()[:6]}"

    def content_settings(self) -> dict[str, Any]:
        """The settings that decide what is prepared from a given source, as JSON values."""
        only_folders = {"fit", "crop_background", "subject_pattern", "max_pixels"}
        unused = only_folders if self.source == PHANTOM else {"phantom_count"}
        return self.model_dump(mode="json", exclude={"source", "path", "max_rejected_fraction"} | unused)


def _is_none(value: object) -> bool:
    return value is None  # settings of GANs only: not in the dump, and so not in the digest, of a diffusion job


class ModelConfig(Section):
    """The network. `family` names the system of the paper; what is not given follows it.

    A level is a halving of the image: its width is `dim` times its entry in `dim_mults`. In a GAN's networks the last
    entry holds for all further levels, down to 4x4.
    """

    family: Family = "lw_ddpm"
    dim: Annotated[int, Field(ge=8, multiple_of=8)] = 80
    dim_mults: Annotated[
        tuple[PositiveInt, ...], Field(min_length=2, max_length=6, description="default: 1, 2, 3, 4; GANs 1, 2, 4, 8")
    ] = (1, 2, 3, 4)
    attention: Literal["se", "linear", "none"] | None = Field(None, description="default: se, or linear for ddpm")
    se_reduction: Annotated[int, Field(ge=1)] = 16
    downsample_last: bool = Field(False, description="the prose's network: the last level is downsampled too")
    latent_dim: PositiveInt | None = Field(None, exclude_if=_is_none, description="GANs: default 100")

    @model_validator(mode="before")
    @classmethod
    def _defaults_follow_family(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = {key: value for key, value in values.items() if value is not None}
        if values.get("family") in families.ADVERSARIAL:
            return {"dim_mults": (1, 2, 4, 8), "latent_dim": 100} | given
        return {"attention": "linear" if values.get("family") == "ddpm" else "se"} | given

    @property
    def downsampling(self) -> int:
        """Factor between the input's and the bottleneck's height and width."""
        return int(2 ** (len(self.dim_mults) - (0 if self.downsample_last else 1)))


class DiffusionConfig(Section):
    beta_schedule: Literal["linear", "cosine", "sigmoid"] = "cosine"
    num_train_timesteps: Annotated[int, Field(ge=2, le=10_000)] = 1000
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    loss: Literal["smooth_l1", "l1", "l2"] = "smooth_l1"
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = Field(None, description="min-SNR loss weights; 5 is usual")


class AdversarialConfig(Section):
    """How a GAN's generator and discriminator are set against each other; each family has its published defaults."""

    optimizer: Literal["adam", "rmsprop"] = "adam"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] | None = Field(
        None, description="of Adam; default 0.5, 0.999"
    )
    lr_discriminator: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="default: training.lr")
    n_critic: PositiveInt = Field(1, description="discriminator updates, each on a new batch, for one of the generator")
    clip: Annotated[float, Field(gt=0)] | None = Field(None, description="wgan: bound of each weight of the critic")
    gradient_penalty: Annotated[float, Field(gt=0)] | None = Field(
        None, description="weight of the penalty on the critic's gradient, 10 is usual; for wgan instead of clip"
    )
    discriminator_norm: Literal["spectral", "group", "none"] = "spectral"

    @model_validator(mode="after")
    def _bounds_and_optimizer_fit(self) -> "AdversarialConfig":
        if self.optimizer == "adam" and self.betas is None:
            object.__setattr__(self, "betas", (0.5, 0.999))
        if self.optimizer == "rmsprop" and self.betas is not None:
            raise ValueError(f"betas are Adam's, got {list(self.betas)} for rmsprop; leave them out")
        return self

    def check(self, family: str) -> None:
        """Refuse a critic that the family's loss does not allow.

        Raises:
            ValueError: the rule, what was found, the remedy.
        """
        if family != "wgan" and self.clip is not None:
            raise ValueError(f"adversarial.clip: is for wgan, got {self.clip:g} for {family}; leave it out")
        if family == "wgan" and (self.clip is None) == (self.gradient_penalty is None):
            raise ValueError(
                "adversarial.clip: wgan needs either clip or gradient_penalty to bound its critic, got "
                f"{self.clip} and {self.gradient_penalty}; set one of them to null"
            )
        if self.clip is not None and self.discriminator_norm == "spectral":
            raise ValueError(
                "adversarial.discriminator_norm: spectral rescales what clip bounds, so that one undoes the other; "
                "take group or none"
            )


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

    @property
    def elastic(self) -> bool:
        return isinstance(self.count, WorkerRange)

    @property
    def min_count(self) -> int:
        return self.count.min if isinstance(self.count, WorkerRange) else self.count

    @property
    def max_count(self) -> int:
        return self.count.max if isinstance(self.count, WorkerRange) else self.count


class SamplingConfig(Section):
    sampler: Sampler = "ddim"
    num_inference_steps: PositiveInt = 50
    eta: Fraction = Field(0.0, description="DDIM only: 0 is deterministic, 1 is as noisy as DDPM")
    batch_size: PositiveInt = 64
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if value is not None}
        return values


Metric = Literal["fid", "fd_lite0", "ssim_nearest", "ssim_pairs", "ssim_reconstruction"]


class EvaluationConfig(SamplingConfig):
    metrics: tuple[Metric, ...] = ("fid", "fd_lite0", "ssim_nearest", "ssim_pairs", "ssim_reconstruction")
    num_samples: Annotated[int, Field(ge=2)] = Field(1000, description="lowered to the held-out slices at hand")
    num_reference: Annotated[int, Field(ge=2)] | None = Field(None, description="training slices; default: all")
    inception_weights: str | None = Field(None, description="file; default: the cache, else a download")
    reconstruction_timestep: Annotated[int, Field(ge=1)] = 50


ONE_PASS = {"sampler": families.SAMPLER, "num_inference_steps": 1}
GAN_SIZES = (16, 32, 64, 128, 256)

Objective = Literal[
    "val/loss",
    "eval/fid",
    "eval/fd_lite0",
    "eval/ssim_nearest",
    "eval/ssim_reconstruction",
    "parameters",
    "sampling_seconds",
    "peak_memory_mib",
]
STATIC_OBJECTIVES = ("parameters", "sampling_seconds", "peak_memory_mib")  # they say nothing about how training goes
DENOISING_OBJECTIVES = ("val/loss", "eval/ssim_reconstruction")  # GANs have none of them


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


class SearchConfig(Section):
    """Which trials a search makes, how they are judged and when a weak one ends. Budgets are optimizer steps."""

    space: str = Field(description="YAML file of the search space, or the name of a shipped one such as paper")
    sampler: Literal["tpe", "random", "cmaes", "qmc", "nsga2"] = "tpe"
    num_trials: PositiveInt = Field(30, description="trials of the whole study; raise it to continue a finished one")
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1), FailFast()] = ("eval/fd_lite0",)
    scheduler: Literal["asha", "median", "none"] = Field("asha", description="what ends weak trials early")
    prune_on: Objective | None = Field(None, description="what early stopping compares; default: the first objective")
    max_steps: PositiveInt | None = Field(None, description="a trial's budget; default: the whole training")
    grace_steps: PositiveInt | None = Field(None, description="no trial ends earlier; default: a ninth of max_steps")
    reduction_factor: Annotated[int, Field(ge=2)] = Field(3, description="ASHA: 1 trial in so many outlives a rung")
    max_concurrent: PositiveInt | None = Field(None, description="default: as many as the cluster has room for")
    storage: str | None = Field(None, description="Optuna storage URL; default: SQLite in the working folder")
    finish: Literal["best", "front", "none"] = Field(
        "best", description="which trials are trained to the end, evaluated and registered"
    )
    proxy: EvaluationConfig = Field(
        EvaluationConfig(num_samples=64, num_reference=512, sampler="sde-dpmsolver++", num_inference_steps=20),
        description="how eval/... objectives are measured during the search; its `metrics` follow from the objectives",
    )

    @model_validator(mode="after")
    def _early_stopping_has_one_measure(self) -> "SearchConfig":
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"search.objectives: each may be named once, got {list(self.objectives)}")
        if self.sampler == "cmaes" and len(self.objectives) > 1:
            raise ValueError("search.sampler: cmaes knows one objective only, got several; choose nsga2, tpe or random")
        if self.pruned_on in STATIC_OBJECTIVES and self.scheduler != "none":
            raise ValueError(
                f"search.prune_on: must be measured while training, got {self.pruned_on}; "
                "name val/loss or an eval/ metric, or set search.scheduler: none"
            )
        return self

    @property
    def pruned_on(self) -> str:
        """The scalar that early stopping compares."""
        return self.prune_on or self.objectives[0]


class SearchJob(TrainingJob):
    """`training` is the full budget, which only the winner gets; trials end at `search.max_steps`."""

    kind: Literal["search"]
    search: SearchConfig

    @model_validator(mode="after")
    def _trials_have_one_size(self) -> "SearchJob":
        if self.workers.elastic:
            raise ValueError("workers.count: must be one number in a search, got a range; name its min")
        return self

    @model_validator(mode="after")
    def _objectives_exist(self) -> "SearchJob":
        search = self.search
        if self.adversarial is None:
            return self
        for key, names in (("objectives", search.objectives), ("prune_on", (search.pruned_on,))):
            for name in names:
                if name in DENOISING_OBJECTIVES:
                    raise ValueError(
                        f"search.{key}: {name} does not exist for {self.model.family}, which does not denoise; "
                        "use eval/fd_lite0"
                    )
        given = search.proxy if "proxy" in search.model_fields_set else search.proxy.model_copy(update=ONE_PASS)
        settled = search.model_copy(update={"proxy": one_pass(given, "search.proxy")})
        object.__setattr__(self, "search", settled)
        return self


System = Literal["lw_ddpm", "ddpm", "ddim", "gan", "wgan", "lsgan"]
Overrides = Annotated[dict[str, Any], Field(description="dotted keys of the job, such as training.lr, with values")]


class AblationConfig(Section):
    """Variants that differ in one setting and have the same budget."""

    systems: Annotated[tuple[System, ...], Field(min_length=1)] = ("lw_ddpm",)
    variants: Annotated[tuple[Overrides, ...], Field(min_length=2)]


def _variants(key: str, *values: str, systems: tuple[System, ...] = ("lw_ddpm",)) -> AblationConfig:
    return AblationConfig(systems=systems, variants=tuple({key: value} for value in values))


class AblationsConfig(Section):
    """The paper's ablations, and epsilon against v prediction; null leaves one out."""

    loss: AblationConfig | None = _variants("diffusion.loss", "smooth_l1", "l1", "l2")
    attention: AblationConfig | None = _variants("model.attention", "se", "linear", "none")
    schedule: AblationConfig | None = _variants(
        "diffusion.beta_schedule", "cosine", "linear", systems=("ddpm", "lw_ddpm")
    )
    prediction_type: AblationConfig | None = _variants("diffusion.prediction_type", "epsilon", "v_prediction")


class CompareConfig(Section):
    """Which systems are compared and what is measured of them, beside what `evaluation` says for all."""

    systems: Annotated[tuple[System, ...], Field(min_length=1)] = ("lw_ddpm", "ddpm", "ddim", "gan", "wgan", "lsgan")
    overrides: dict[System, Overrides] = Field({}, description="what differs for a system")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = Field(
        None, description="every training is repeated with each; default: the job's seed alone"
    )
    sampling_seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = Field(
        (0, 1, 2), description="every system is sampled and measured with each, for intervals"
    )
    ddim_steps: PositiveInt = Field(50, description="sampling steps of the system ddim")
    ablations: AblationsConfig = AblationsConfig()
    ablation_overrides: Overrides = Field({}, description="budget of all variants; default: that of the systems")
    proxy: EvaluationConfig | None = Field(
        None,
        description="how variants and curves are measured; curves take num_samples and num_reference from it, and "
        "the system's own sampler; default: as `evaluation`",
    )
    inference_steps: tuple[PositiveInt, ...] = Field((5, 10, 20, 50, 100), description="for the curve of quality")
    snapshot_epochs: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (70, 100, 200, 250), description="scaled so that the last one is the end of the training"
    )
    sample_sizes: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (50, 100, 250, 500, 1000), description="for the curve of Fréchet distances; those that there are slices for"
    )
    cost_rounds: Annotated[int, Field(ge=1)] = Field(3, description="times that the cost of each system is measured")
    cost_steps: Annotated[int, Field(ge=4)] = Field(24, description="optimizer steps timed in a round")

    @model_validator(mode="after")
    def _systems_are_distinct(self) -> "CompareConfig":
        for name in ("systems", "seeds", "sampling_seeds", "snapshot_epochs"):
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                raise ValueError(f"compare.{name}: each may be named once, got {list(values)}")
        if list(self.snapshot_epochs) != sorted(self.snapshot_epochs):
            raise ValueError(f"compare.snapshot_epochs: must rise, got {list(self.snapshot_epochs)}")
        if "ddim" in self.systems and "ddpm" not in self.systems:
            raise ValueError("compare.systems: ddim samples the weights of ddpm; add ddpm, or leave ddim out")
        return self


class CompareJob(TrainingJob):
    """The sections of a training are the base of every system's."""

    kind: Literal["compare"]
    compare: CompareConfig = CompareConfig()

    @model_validator(mode="after")
    def _evaluates(self) -> "CompareJob":
        if self.evaluation is None:
            raise ValueError("evaluation: a comparison needs one, got null; leave it out for the defaults")
        if self.training.snapshot_epochs:
            raise ValueError(
                f"training.snapshot_epochs: follow from compare.snapshot_epochs, got "
                f"{list(self.training.snapshot_epochs)}; remove them"
            )
        if self.diffusion is None:
            raise ValueError(
                f"model.family: the base of a comparison is a diffusion model, got {self.model.family}; leave it out, "
                "and give what is special to a GAN in compare.overrides"
            )
        if self.compare.proxy is not None:
            check_steps(self.compare.proxy, self.diffusion, "compare.proxy")
        return self

    @property
    def protocol(self) -> EvaluationConfig:
        """How every system is measured, except for its sampler."""
        assert self.evaluation is not None
        return self.evaluation

    @property
    def proxy(self) -> EvaluationConfig:
        """How variants and curves are measured."""
        return self.compare.proxy or self.protocol


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


AnyJob = PrepareJob | TrainJob | SearchJob | CompareJob | EvaluateJob | SampleJob
KINDS: dict[str, type[AnyJob]] = {
    "prepare": PrepareJob,
    "train": TrainJob,
    "search": SearchJob,
    "compare": CompareJob,
    "evaluate": EvaluateJob,
    "sample": SampleJob,
}


def check_steps(sampling: SamplingConfig, diffusion: DiffusionConfig, section: str) -> None:
    """Refuse more sampling steps, or a later reconstruction, than the model was trained with.

    Raises:
        ValueError: names the setting, both numbers and the limit.
    """
    steps, limit = sampling.num_inference_steps, diffusion.num_train_timesteps
    if sampling.sampler == families.SAMPLER:
        raise ValueError(f"{section}.sampler: must be one of a diffusion model's, got {sampling.sampler}; try ddim")
    if steps > limit:
        raise ValueError(
            f"{section}.num_inference_steps: must be at most diffusion.num_train_timesteps = {limit}, got {steps}"
        )
    if isinstance(sampling, EvaluationConfig) and sampling.reconstruction_timestep >= limit:
        raise ValueError(
            f"{section}.reconstruction_timestep: must be below diffusion.num_train_timesteps = {limit}, "
            f"got {sampling.reconstruction_timestep}"
        )


S = TypeVar("S", bound=SamplingConfig)


def one_pass(sampling: S, section: str) -> S:
    """How a GAN's slices are drawn; refuses settings that were given and mean nothing to it.

    Raises:
        ValueError: names them.
    """
    fields = type(sampling).model_fields  # in their order: a set's differs from process to process
    given = {name: getattr(sampling, name) for name in fields if name in sampling.model_fields_set}
    wrong = families.not_for_one_pass(given)
    if wrong:
        raise ValueError(
            f"{section}.{wrong[0]}: the model is a GAN and draws in one pass, got {given[wrong[0]]}; leave out "
            f"{', '.join(wrong)}, or set to null"
        )
    return sampling.model_copy(update=ONE_PASS)
