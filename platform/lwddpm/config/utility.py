"""Section `utility`: what a classifier learns from a conditional model's slices, beside and in place of real ones."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from lwddpm.config.rule import RuleBroken
from lwddpm.config.section import PositiveInt, Section, SeveralInt

Learner = Literal["logistic", "resnet"]
_Share = Annotated[float, Field(gt=0, le=1)]
_Ratio = Annotated[float, Field(ge=0, le=100)]


class UtilityConfig(Section):
    """Which mixtures of real and synthetic slices are learnt from, by whom, and how often."""

    real_shares: Annotated[tuple[_Share, ...], Field(min_length=1, max_length=10)] = Field(
        (0.10, 0.25, 0.50, 1.00), description="of the training slices, drawn by group and class; 1 must be among them"
    )
    synthetic_ratios: Annotated[tuple[_Ratio, ...], Field(min_length=2, max_length=10)] = Field(
        (0.0, 1.0, 2.0, 5.0), description="synthetic slices for each real one; 0 must be among them"
    )
    seeds: Annotated[SeveralInt, Field(le=50)] = Field(
        5, description="how often each mixture is drawn and learnt from anew"
    )
    learners: Annotated[tuple[Learner, ...], Field(min_length=1)] = Field(
        get_args(Learner),
        description="logistic: logistic regression on EfficientNet-Lite0 features, seconds; resnet: a small residual "
        "network from scratch",
    )
    steps: PositiveInt = Field(400, description="optimizer steps of the resnet, the same from every mixture")
    batch_size: SeveralInt = Field(64, description="slices of a step of the resnet")

    @field_validator("real_shares", "synthetic_ratios", "learners")
    @classmethod
    def _differ(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise RuleBroken("", "no value may be there twice", twice, "remove one")
        return values if isinstance(values[0], str) else tuple(sorted(values))

    @field_validator("real_shares")
    @classmethod
    def _hold_all(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if 1 not in shares:
            rule = "must hold 1: all real slices are what the others are read beside"
            raise RuleBroken("", rule, list(shares), "add 1.0")
        return shares

    @field_validator("synthetic_ratios")
    @classmethod
    def _hold_none(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if 0 not in ratios:
            rule = "must hold 0: real slices alone are what the others are compared with"
            raise RuleBroken("", rule, list(ratios), "add 0")
        return ratios

    def num_drawn(self, num_train: int) -> int:
        """Slices that are drawn of a model that was trained on so many: for the largest mixture, and to learn from
        as many synthetic slices as there are real ones."""
        return round(num_train * max(1.0, *self.synthetic_ratios))
