"""Section `compare` and its job."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lwddpm.config.evaluation import EvaluationConfig, check_steps
from lwddpm.config.job import TrainingJob
from lwddpm.config.section import PositiveInt, Section, Seed

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
