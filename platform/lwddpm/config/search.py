"""Section `search` and its job."""

from typing import Annotated, Literal

from pydantic import FailFast, Field, model_validator

from lwddpm.config.evaluation import ONE_PASS, EvaluationConfig, one_pass
from lwddpm.config.job import TrainingJob
from lwddpm.config.section import PositiveInt, Section

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
