"""A promotion policy: what must be shown of a version before an alias is moved to it; `release.policy` reads it."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from lwddpm.config.class_measures import CLASS_MEASURES
from lwddpm.config.evaluation import Metric
from lwddpm.config.rule import RuleBroken
from lwddpm.config.section import PositiveInt, Section, is_false, is_none

AuditMetric = Literal[
    "copied_share",
    "reproduced_share",
    "reproduced_subject_share",
    "false_alarm_share",
    "power",
    "ct_z",
    "authpct",
    "fd_gap",
    "mia_auc",
    "mia_tpr_at_1_fpr",
    "utility_real_logistic",
    "utility_synthetic_logistic",
    "utility_on_synthetic_logistic",
    "utility_gain_logistic",
    "utility_real_resnet",
    "utility_synthetic_resnet",
    "utility_on_synthetic_resnet",
    "utility_gain_resnet",
]
METRICS: dict[str, tuple[str, ...]] = {
    "evaluation": (*get_args(Metric), *CLASS_MEASURES),
    "audit": get_args(AuditMetric),
}
# Metrics that nobody gives an interval: a rule is about the value, and says so.
WITHOUT_INTERVAL = frozenset({"ssim_nearest", "ssim_pairs", "ssim_reconstruction", "utility_lite0", "fd_gap"})
MOST_RULES = 20
_MOST_DAYS = 3650
Text = Annotated[str, Field(min_length=1, max_length=600)]


class GateRule(Section):
    """One figure with its limit, and why there is one."""

    metric: str = Field(description="name of the figure: of an evaluation's metrics, or of an audit's records")
    source: Literal["evaluation", "audit"] = Field(description="where the figure stands: evaluation or audit")
    at_most: float | None = Field(
        None, exclude_if=is_none, description="limit on the upper end of the figure's 95 % interval"
    )
    at_least: float | None = Field(
        None, exclude_if=is_none, description="limit on the lower end of the figure's 95 % interval"
    )
    times_floor: bool = Field(
        False, exclude_if=is_false, description="the limit is a multiple of the figure's real-versus-real floor"
    )
    fewest: PositiveInt | None = Field(
        None, exclude_if=is_none, description="slices that the figure must have been measured on; fewer do not count"
    )
    why: Text = Field(description="why this limit: read by whoever is refused")

    @field_validator("at_most", "at_least", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise RuleBroken("", "must be a number", value, "such as 0.02")
        return value

    @field_validator("why")
    @classmethod
    def _says_something(cls, why: str) -> str:
        if not why.strip():
            raise RuleBroken("", "must say why there is this limit", why)
        return why

    @model_validator(mode="after")
    def _is_complete(self) -> "GateRule":
        if self.metric not in METRICS[self.source]:
            known = ", ".join(METRICS[self.source])
            raise RuleBroken("metric", f"must be a metric of the {self.source}", self.metric, f"known: {known}")
        if (self.at_most is None) == (self.at_least is None):
            raise RuleBroken("", "a rule has one of at_most and at_least", remedy=f"give {self.metric} one of them")
        if self.times_floor and self.source == "audit":
            raise RuleBroken("times_floor", "only figures of an evaluation have a floor", True, "leave it out")
        return self

    @property
    def limit(self) -> float:
        """The number after at_most or at_least."""
        return self.at_most if self.at_most is not None else self.at_least  # type: ignore[return-value]


class GatePolicy(Section):
    """What a version must show before it is promoted, and who must agree."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,49}$")] = Field(
        description="small letters, digits, _ -; default: the file's name without its ending"
    )
    version: PositiveInt = Field(description="raised by whoever changes the policy")
    intended_use: Text = Field(description="what promoted versions may be used for")
    threat_model: Text = Field(
        "not stated", description="who gets what, and could learn what: weights, an interface that draws, images only"
    )
    expires_days: Annotated[int, Field(ge=1, le=_MOST_DAYS)] = Field(
        description="days after which an evaluation or audit counts no longer"
    )
    readers_study: bool = Field(False, description="whether a reader must have finished a study of the version")
    approver: bool = Field(False, description="whether somebody other than who trained the version must approve")
    rules: Annotated[tuple[GateRule, ...], Field(min_length=1, max_length=MOST_RULES)] = Field(
        description=f"up to {MOST_RULES}, all of which must hold"
    )

    @field_validator("rules")
    @classmethod
    def _rules_differ(cls, rules: tuple[GateRule, ...]) -> tuple[GateRule, ...]:
        seen = set()
        for rule in rules:
            key = (rule.source, rule.metric, rule.at_most is None)
            if key in seen:
                side = "at_least" if rule.at_most is None else "at_most"
                raise RuleBroken("", f"one rule says all about {side} of {rule.metric}", remedy="remove one")
            seen.add(key)
        return rules
