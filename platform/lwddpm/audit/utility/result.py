"""What a study of utility has found, as it stands in `audit.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from lwddpm.audit.utility import statistics
from lwddpm.audit.utility.arms import Arm, mixtures, real_rows
from lwddpm.audit.utility.learners import Fit, Slices, first_asked
from lwddpm.config import SamplingConfig, UtilityConfig
from lwddpm.config.section import hex_digest

_METHOD_IN = ("arms", "learners")
_SIGNIFICANT = 0.05


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Measured(_Part):
    """A balanced accuracy, a sensitivity or a difference, with its interval of 95 %."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, estimate: statistics.Estimate) -> "Measured":
        return cls(value=estimate.value, low=estimate.low, high=estimate.high)


class ArmResult(_Part):
    """What was learnt from one mixture.

    Attributes:
        share: of the real slices; 0: synthetic slices alone.
        ratio: synthetic slices for each real one.
        num_real, num_synthetic: slices learnt from, the mean over seeds.
        accuracy: balanced, of the test slices.
        by_seed: the same of each seed.
        sensitivity: by class, the mean over seeds.
        gain: accuracy less that of the same real slices alone, paired; None for these themselves.
        p_value: that `gain` is 0; p_adjusted: after Holm, over all gains of a learner.
        worth: so many real slices alone reach this accuracy; worth_beyond "<": the fewest do already, ">": all do not.
    """

    share: float
    ratio: float
    num_real: int
    num_synthetic: int
    accuracy: Measured
    by_seed: tuple[float, ...]
    sensitivity: dict[str, float]
    gain: Measured | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    worth: float
    worth_beyond: str = ""

    @property
    def verdict(self) -> Literal["help", "harm", "not shown"] | None:
        """What the synthetic slices of a mixture do (p < 0.05 after Holm); None where there is no gain to judge."""
        if self.gain is None or self.p_adjusted is None:
            return None
        if self.p_adjusted >= _SIGNIFICANT:
            return "not shown"
        return "help" if self.gain.value > 0 else "harm"


class LearnerResult(_Part):
    """All that one learner has shown.

    Attributes:
        steps: optimizer steps from every mixture; 0: to the optimum of a convex loss.
        on_synthetic: balanced accuracy of those who learnt from all real slices, of synthetic slices by the class that
            they were asked for; n_synthetic: how many these are.
    """

    learner: str
    steps: int
    arms: tuple[ArmResult, ...]
    on_synthetic: Measured
    n_synthetic: int

    def arm(self, share: float, ratio: float) -> ArmResult:
        return next(arm for arm in self.arms if (arm.share, arm.ratio) == (share, ratio))

    @property
    def real(self) -> ArmResult:
        """All real slices, alone: what the others are read beside."""
        return self.arm(1.0, 0.0)

    @property
    def synthetic(self) -> ArmResult:
        """As many synthetic slices as there are real ones, alone."""
        return self.arm(0.0, 1.0)

    @property
    def beside_all(self) -> ArmResult:
        """All real slices with the smallest number of synthetic ones that was tried."""
        return min((arm for arm in self.arms if arm.share == 1 and arm.ratio > 0), key=lambda arm: arm.ratio)


class UtilityResult(_Part):
    """The part `utility` of an audit.

    Attributes:
        classes: test slices of each class that there are test slices of; left_out: classes without.
        num_train, num_drawn: real slices learnt from, and slices drawn.
        code: of the method.
    """

    classes: dict[str, int]
    left_out: tuple[str, ...]
    num_train: int
    num_drawn: int
    num_seeds: int
    learners: tuple[LearnerResult, ...]
    sampling: SamplingConfig
    code: str
    settings: dict[str, Any]

    @property
    def n(self) -> int:
        """Test slices."""
        return sum(self.classes.values())

    def metrics(self) -> dict[str, float]:
        """For MLflow: the balanced accuracy of every mixture."""
        return {
            f"audit/utility_{each.learner}_r{arm.share:g}_k{arm.ratio:g}": arm.accuracy.value
            for each in self.learners
            for arm in each.arms
        }


def result_of(
    fits: Mapping[Arm, Fit],
    config: UtilityConfig,
    train: Slices,
    test: Slices,
    synthetic: Slices,
    names: tuple[str, ...],
    sampling: SamplingConfig,
) -> UtilityResult:
    """What the fits of all arms come to.

    Args:
        names: of the classes.
    """
    counts = np.bincount(test.labels, minlength=len(names))
    return UtilityResult(
        classes={name: int(count) for name, count in zip(names, counts, strict=True) if count},
        left_out=tuple(name for name, count in zip(names, counts, strict=True) if not count),
        num_train=len(train.labels),
        num_drawn=len(synthetic.labels),
        num_seeds=config.seeds,
        learners=tuple(
            _of_learner(
                {arm: fit for arm, fit in fits.items() if arm.learner == learner}, config, train, test, synthetic, names
            )
            for learner in config.learners
        ),
        sampling=sampling,
        code=method_code(),
        settings=config.model_dump(mode="json"),
    )


def _of_learner(
    fits: Mapping[Arm, Fit],
    config: UtilityConfig,
    train: Slices,
    test: Slices,
    synthetic: Slices,
    names: tuple[str, ...],
) -> LearnerResult:
    steps = {fit.steps for fit in fits.values()}
    assert len(steps) == 1, f"all arms take the same optimizer steps, got {sorted(steps)}"
    learner, seeds = next(iter(fits)).learner, range(config.seeds)
    answers = {
        (share, ratio): np.stack([fits[Arm(learner, share, ratio, seed)].on_real for seed in seeds])
        for share, ratio in mixtures(config)
    }
    sizes = {
        share: round(np.mean([len(real_rows(train.labels, train.groups, share, seed)) for seed in seeds]))
        for share in {share for share, _ in answers}
    }
    accuracies = {key: statistics.accuracy(each, test.labels, test.groups) for key, each in answers.items()}
    gains = {
        (share, ratio): statistics.difference(each, answers[share, 0.0], test.labels, test.groups)
        for (share, ratio), each in answers.items()
        if share > 0 and ratio > 0
    }
    adjusted = dict(zip(gains, statistics.holm([gain.p_value for gain in gains.values()]), strict=True))
    alone = [sizes[share] for share in config.real_shares], [accuracies[s, 0.0].value for s in config.real_shares]
    found = []
    for (share, ratio), each in answers.items():
        by_class = statistics.sensitivity(each, test.labels, len(names))
        number, beyond = statistics.worth(*alone, accuracies[share, ratio].value)
        gain = gains.get((share, ratio))
        found.append(
            ArmResult(
                share=share,
                ratio=ratio,
                num_real=sizes[share],
                num_synthetic=round(ratio * (sizes[share] or len(train.labels))),
                accuracy=Measured.of(accuracies[share, ratio]),
                by_seed=tuple(float(np.nanmean(of_seed)) for of_seed in by_class),
                sensitivity={
                    name: float(value)
                    for name, value in zip(names, by_class.mean(0), strict=True)
                    if not np.isnan(value)
                },
                gain=None if gain is None else Measured.of(gain),
                p_value=None if gain is None else gain.p_value,
                p_adjusted=adjusted.get((share, ratio)),
                worth=number,
                worth_beyond=beyond,
            )
        )
    asked = first_asked(synthetic, len(test.labels))
    told = np.stack([fits[Arm(learner, 1.0, 0.0, seed)].on_synthetic for seed in seeds])
    return LearnerResult(
        learner=learner,
        steps=steps.pop(),
        arms=tuple(found),
        on_synthetic=Measured.of(statistics.accuracy(told, asked.labels, asked.groups)),
        n_synthetic=len(asked.labels),
    )


def method_code() -> str:
    """A hash of the code that draws mixtures and learns from them."""
    room = Path(__file__).parent
    return hex_digest({name: (room / f"{name}.py").read_text(encoding="utf-8") for name in _METHOD_IN})
