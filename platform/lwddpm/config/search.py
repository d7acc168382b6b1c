"""Section `search` and its job."""

from typing import Annotated, Any, Literal, get_args

from pydantic import FailFast, Field, FiniteFloat, model_validator

from lwddpm import families
from lwddpm.config.class_measures import ClassObjective, class_measure
from lwddpm.config.evaluation import EvaluationConfig
from lwddpm.config.job import NameOfMany
from lwddpm.config.rule import RuleBroken
from lwddpm.config.sampling import SamplingConfig
from lwddpm.config.sampling_checks import check_guide, check_one_pass, check_steps
from lwddpm.config.section import PositiveInt, Section, SeveralInt, is_empty
from lwddpm.config.train_job import TrainingJob

DenoisingObjective = Literal["val/loss", "eval/ssim_reconstruction"]
StaticObjective = Literal["parameters", "sampling_seconds", "peak_memory_mib"]
NeighbourObjective = Literal["eval/precision_lite0", "eval/recall_lite0", "eval/density_lite0", "eval/coverage_lite0"]
CopiedObjective = Literal["audit/copied_share"]
Objective = Literal[
    DenoisingObjective,
    NeighbourObjective,
    ClassObjective,
    "eval/fid",
    "eval/fd_lite0",
    "eval/ssim_nearest",
    StaticObjective,
    CopiedObjective,
]
COPIED_OBJECTIVE: CopiedObjective = "audit/copied_share"  # a cheap look, `evaluation.copying`; not the audit itself
DENOISING_OBJECTIVES: tuple[DenoisingObjective, ...] = get_args(DenoisingObjective)  # GANs have none of them
NEIGHBOUR_OBJECTIVES: tuple[NeighbourObjective, ...] = get_args(NeighbourObjective)  # more of them is better
STATIC_OBJECTIVES: tuple[StaticObjective, ...] = get_args(StaticObjective)  # they say nothing of how training goes

_NUM_TRIALS = 30
_PROXY_SIZE = {"num_samples": 64, "num_reference": 512}


class SearchConfig(Section):
    """Which trials a search makes, how they are judged and when a weak one ends. Budgets are optimizer steps."""

    incidental = frozenset({"max_concurrent"})

    space: str = Field(description="YAML file of the search space, or the name of a shipped one such as paper")
    sampler: Literal["tpe", "random", "cmaes", "qmc", "nsga2", "grid"] = Field(
        "tpe",
        description="Optuna's sampler, which proposes values; cmaes: one objective only; grid: every combination once",
    )
    num_trials: PositiveInt | None = Field(
        None,
        description="trials of the whole study; raise it to continue a finished one; default: 30, with sampler grid "
        "every combination",
    )
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1), FailFast()] = Field(
        ("eval/fd_lite0",), description="what a trial is judged by; several make a Pareto front"
    )
    constraints: dict[Objective, FiniteFloat] = Field(
        {},
        exclude_if=is_empty,
        description="objectives with a limit, such as audit/copied_share: 0.02; a trial with more at its full budget "
        "(where more is better: with less) is never chosen",
    )
    scheduler: Literal["asha", "median", "none"] = Field("asha", description="what ends weak trials early")
    prune_on: Objective | None = Field(None, description="what early stopping compares; default: the first objective")
    max_steps: PositiveInt | None = Field(None, description="a trial's budget; default: the whole training")
    grace_steps: PositiveInt | None = Field(None, description="no trial ends earlier; default: a ninth of max_steps")
    reduction_factor: SeveralInt = Field(3, description="ASHA: 1 trial in so many outlives a rung")
    max_concurrent: PositiveInt | None = Field(
        None, description="default: as many as the cluster has room for; 1 where sampling_seconds is measured"
    )
    storage: str | None = Field(None, description="Optuna storage URL; default: SQLite in the working folder")
    finish: Literal["best", "front", "none"] = Field(
        "best", description="which trials are trained to the end, evaluated and registered"
    )
    proxy: EvaluationConfig = Field(
        EvaluationConfig(**_PROXY_SIZE, sampler="sde-dpmsolver++", num_inference_steps=20),
        description="how eval/... objectives are measured during the search; its `metrics` follow from the objectives",
    )

    @model_validator(mode="before")
    @classmethod
    def _num_trials_follows_from_the_sampler(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("num_trials") is None and values.get("sampler") != "grid":
            return {**values, "num_trials": _NUM_TRIALS}
        return values

    @model_validator(mode="after")
    def _objectives_fit_sampler_and_scheduler(self) -> "SearchConfig":
        if len(set(self.objectives)) < len(self.objectives):
            raise RuleBroken("objectives", "each may be named once", self.objectives)
        if self.sampler == "cmaes" and len(self.objectives) > 1:
            raise RuleBroken(
                "sampler",
                f"cmaes knows one objective only, and search.objectives names {len(self.objectives)}",
                remedy="choose nsga2, tpe or random",
            )
        if self.pruned_on in STATIC_OBJECTIVES and self.scheduler != "none":
            raise RuleBroken(
                "prune_on",
                "must be measured while training",
                self.pruned_on,
                "name val/loss or an eval/ metric, or set search.scheduler: none",
            )
        if self.timed and (self.max_concurrent or 1) > 1:
            raise RuleBroken(
                "max_concurrent",
                "must be 1 with sampling_seconds, which other trials on the same CPUs would lengthen",
                self.max_concurrent,
                "leave it out",
            )
        return self

    @property
    def timed(self) -> bool:
        """Whether trials are timed: only one runs at a time then, so that each is alone."""
        return "sampling_seconds" in self.named

    @property
    def limits(self) -> dict[str, float]:
        """The constraints."""
        return {str(name): limit for name, limit in self.constraints.items()}

    @property
    def named(self) -> tuple[str, ...]:
        """All that is measured of a trial at its full budget, each once."""
        return tuple(dict.fromkeys((*self.objectives, *self.constraints, self.pruned_on)))

    @property
    def pruned_on(self) -> str:
        """The scalar that early stopping compares."""
        return self.prune_on or self.objectives[0]


class SearchJob(TrainingJob):
    """A search: `training` is the full budget, which only the winner gets; trials end at `search.max_steps`."""

    # a search may go on with others; what they make stands in the runs of its trials
    unrecorded = frozenset({"registry", "evaluation", "search.num_trials", "search.finish"})

    kind: Literal["search"]
    name: NameOfMany
    search: SearchConfig

    @model_validator(mode="before")
    @classmethod
    def _proxy_of_a_gan_draws_in_one_pass(cls, values: Any) -> Any:
        search = values.get("search") if isinstance(values, dict) else None
        if not isinstance(search, dict) or families.family_of(values) not in families.ADVERSARIAL:
            return values
        proxy = search.get("proxy", _PROXY_SIZE)
        if not isinstance(proxy, dict):
            return values
        given = {name: value for name, value in proxy.items() if value is not None}
        return {**values, "search": {**search, "proxy": families.ONE_PASS | given}}

    def essentials(self) -> dict[str, Any]:
        return super().essentials() | {"measured": self.measured_settings()}

    def measured_settings(self) -> dict[str, Any]:
        """Settings that change nothing of what a trial learns, but an objective of this search."""
        names: list[str] = []
        if "val/loss" in self.search.named:
            names += ["validation_samples"]
        if "peak_memory_mib" in self.search.named:
            names += ["grad_accumulation_steps", "channels_last", "compile"]
        if self._draws and self.search.proxy.guidance != 1:
            names += ["guide_epoch"]
        return self.training.model_dump(mode="json", include=set(names))

    @model_validator(mode="after")
    def _trials_have_one_size(self) -> "SearchJob":
        if self.workers.elastic:
            raise RuleBroken("workers.count", "must be one number in a search, not a range", remedy="name its min")
        return self

    @model_validator(mode="after")
    def _objectives_can_be_measured(self) -> "SearchJob":
        search = self.search
        by_key = {"objectives": search.objectives, "constraints": search.constraints, "prune_on": (search.pruned_on,)}
        for key, names in by_key.items():
            for name in names:
                self._check_objective(f"search.{key}", name)
        if self.adversarial is not None:
            check_one_pass(self.search.proxy.model_dump(), "search.proxy")
        elif self.diffusion is not None and self._draws:
            reconstructs = "eval/ssim_reconstruction" in self.search.named
            proxy = self.search.proxy if reconstructs else _without_reconstruction(self.search.proxy)
            check_steps(proxy, self.diffusion, "search.proxy")
            check_guide(proxy, self.training.guide_epoch, "search.proxy", self.training.condition_dropout)
        return self

    @property
    def _draws(self) -> bool:
        return any(compares_slices(name) or name == "sampling_seconds" for name in self.search.named)

    def _check_objective(self, key: str, name: str) -> None:
        _, validation, test = self.data.splits
        if self.adversarial is not None and name in DENOISING_OBJECTIVES:
            rule = f"{name} does not exist for {self.model.family}, which does not denoise"
            raise RuleBroken(key, rule, remedy="use eval/fd_lite0")
        if class_measure(name) and "label" not in self.model.conditions:
            rule = f"{name} takes a model that is told the class (model.conditions: [label])"
            raise RuleBroken(key, rule, list(self.model.conditions), "set that, or use eval/fd_lite0")
        if name == "eval/utility_lite0" and validation == 0:
            rule = f"{name} is tried on validation slices, and data.splits is {list(self.data.splits)}"
            raise RuleBroken(key, rule, remedy="give validation a share")
        if name == "val/loss" and self.training.validation_samples == 0:
            rule = "val/loss is not computed with training.validation_samples = 0"
            raise RuleBroken(key, rule, remedy="raise that, or use eval/fd_lite0")
        if name == "val/loss" and validation == 0:
            rule = f"val/loss needs a validation split, and data.splits is {list(self.data.splits)}"
            raise RuleBroken(key, rule, remedy="give it a share, or use eval/fd_lite0")
        if compares_slices(name) and validation + test == 0:
            rule = f"{name} needs held-out slices, and data.splits is {list(self.data.splits)}"
            raise RuleBroken(key, rule, remedy="give validation and test a share")


def maximised(objective: str) -> bool:
    """Whether more is better: of SSIM, precision, recall, density, coverage, obedience and utility."""
    if of_classes := class_measure(objective):
        return of_classes.better == "high"
    return objective.startswith("eval/ssim") or objective in NEIGHBOUR_OBJECTIVES


def compares_slices(objective: str) -> bool:
    """Whether slices are drawn, and compared with held-out ones, for an objective."""
    return objective.startswith("eval/") or objective == COPIED_OBJECTIVE


def _without_reconstruction(proxy: EvaluationConfig) -> SamplingConfig:
    """How slices are drawn, and nothing else."""
    return SamplingConfig.model_validate(proxy.model_dump(include=set(SamplingConfig.model_fields)))
