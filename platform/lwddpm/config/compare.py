"""Section `compare` and its job."""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from lwddpm import families
from lwddpm.config.evaluation import EvaluationConfig
from lwddpm.config.job import NameOfMany
from lwddpm.config.rule import RuleBroken
from lwddpm.config.sampling_checks import check_guide, check_steps
from lwddpm.config.section import LARGEST_INT, PositiveInt, Section, Seed, SeveralInt
from lwddpm.config.train_job import TrainingJob
from lwddpm.config.training import Epochs
from lwddpm.families import Family

# ddim is ddpm's network, sampled with DDIM; recipe is lw_ddpm with the overrides that the job gives it
System = Literal[Family, "ddim", "recipe"]
Overrides = Annotated[
    dict[str, JsonValue], Field(description="dotted keys of the job, such as training.lr, with values")
]


class AblationConfig(Section):
    """Variants that differ in one setting and have the same budget."""

    systems: Annotated[tuple[Family, ...], Field(min_length=1)] = Field(
        ("lw_ddpm",), description="each is trained in every variant"
    )
    variants: Annotated[tuple[Overrides, ...], Field(min_length=2)] = Field(
        description="what each variant sets: dotted keys of the job with values"
    )


def _variants(key: str, *values: str, systems: tuple[Family, ...] = ("lw_ddpm",)) -> AblationConfig:
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

    systems: Annotated[tuple[System, ...], Field(min_length=1)] = Field(
        ("lw_ddpm", "ddpm", "ddim", "gan", "wgan", "lsgan"), description="in the order of the report"
    )
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
    inference_steps: tuple[PositiveInt, ...] = Field(
        (5, 10, 20, 50, 100), description="numbers of sampling steps, for the curve of quality against steps"
    )
    snapshot_epochs: tuple[Epochs, ...] = Field(
        (70, 100, 200, 250),
        description="for the curve of quality against training; scaled so that the last one is the end of the training",
    )
    sample_sizes: tuple[SeveralInt, ...] = Field(
        (50, 100, 250, 500, 1000),
        description="for the curve of Fréchet distances against the number of slices; those that there are slices for",
    )
    cost_rounds: PositiveInt = Field(3, description="times that the cost of each system is measured")
    cost_steps: Annotated[int, Field(ge=4, le=LARGEST_INT)] = Field(24, description="optimizer steps timed in a round")

    @model_validator(mode="after")
    def _lists_fit_together(self) -> "CompareConfig":
        for name in ("systems", "seeds", "sampling_seeds", "snapshot_epochs"):
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                raise RuleBroken(name, "each may be named once", values)
        if list(self.snapshot_epochs) != sorted(self.snapshot_epochs):
            raise RuleBroken("snapshot_epochs", "must rise", self.snapshot_epochs)
        if "ddim" in self.systems and "ddpm" not in self.systems:
            raise RuleBroken("systems", "ddim samples the weights of ddpm", self.systems, "add ddpm, or leave ddim out")
        if "recipe" in self.systems and not self.overrides.get("recipe"):
            raise RuleBroken(
                "systems",
                "recipe is lw_ddpm with settings of its own",
                self.systems,
                "give them in compare.overrides.recipe, or leave recipe out",
            )
        return self


class CompareJob(TrainingJob):
    """A comparison: the sections of a training are the base of every system's."""

    kind: Literal["compare"]
    name: NameOfMany
    compare: CompareConfig = CompareConfig()

    @model_validator(mode="before")
    @classmethod
    def _base_is_a_diffusion_model(cls, values: Any) -> Any:
        family = families.family_of(values) if isinstance(values, dict) else None
        if family in families.ADVERSARIAL:
            raise RuleBroken(
                "model.family",
                "the base of a comparison is a diffusion model",
                family,
                "leave it out, and give what is special to a GAN in compare.overrides",
            )
        return values

    @model_validator(mode="after")
    def _base_is_evaluated(self) -> "CompareJob":
        if self.evaluation is None:
            raise RuleBroken("evaluation", "a comparison needs one", None, "leave it out for the defaults")
        if self.training.snapshot_epochs:
            raise RuleBroken(
                "training.snapshot_epochs",
                "follow from compare.snapshot_epochs",
                self.training.snapshot_epochs,
                "remove them",
            )
        assert self.diffusion is not None
        if self.compare.proxy is not None:
            check_steps(self.compare.proxy, self.diffusion, "compare.proxy")
            check_guide(self.compare.proxy, self.training.guide_epoch, "compare.proxy", self.training.condition_dropout)
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
