"""Trials in the study, which is the only record of a search: written rung by rung, read as people ask for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from lwddpm.config.search import maximised
from lwddpm.search.space import SearchSpace, decoded
from lwddpm.wording import number

# User attributes of a trial
STEP, METRICS, SECONDS = "lwddpm.step", "lwddpm.metrics", "lwddpm.seconds"
CURVE, REASON, RUN_ID, INFEASIBLE = "lwddpm.curve", "lwddpm.reason", "lwddpm.run_id", "lwddpm.infeasible"
REPEATS = "lwddpm.repeats"  # number of the earlier trial with the same parameters
ENDED_AT = "lwddpm.ended_at"  # the rung at which early stopping ended it

State = Literal["complete", "pruned", "failed", "infeasible", "running"]


@dataclass(frozen=True)
class TrialRecord:
    """A trial as people ask for it.

    Attributes:
        step: the last budget that it reached, in optimizer steps; 0 before the first.
        values: of the objectives, at the full budget only.
        last: the last value of what early stopping compares.
        params: job values by dotted key.
        seconds: of training and measuring.
        repeats: number of the earlier trial with the same parameters, whose outcome this one took over untrained.
        violates: constraints beyond whose limit it is, by which it is never chosen; `reason` says by how much.
    """

    number: int
    state: State
    step: int
    values: tuple[float, ...] | None
    last: float | None
    params: dict[str, Any]
    reason: str
    run_id: str
    seconds: float
    repeats: int | None = None
    violates: tuple[str, ...] = ()


def resumed_trial(study: optuna.Study, number: int) -> optuna.Trial:
    """The trial of an earlier session that is still RUNNING, to be reported to again.

    Optuna hands out an `optuna.Trial` only when it creates the trial, so this needs the trial's id in the storage,
    which has no public name. Nothing else here does; tests/search/test_trials.py says when a new Optuna moves it.

    Raises:
        RuntimeError: this version of Optuna keeps the id elsewhere.
    """
    stored = study.get_trials(deepcopy=False)[number]
    trial_id = getattr(stored, "_trial_id", None)
    if trial_id is None:
        raise RuntimeError(
            f"optuna {optuna.__version__} does not tell a trial's id as optuna 5.0 does, so trial {number} cannot be "
            "continued; install the tested versions: constraints.txt"
        )
    return optuna.Trial(study, trial_id)


def report(
    trial: optuna.Trial, step: int, value: float, measured: dict[str, float], seconds: float, *, single: bool
) -> None:
    """Write what was measured at a rung; the same rung again changes nothing.

    Args:
        step: of the rung, in optimizer steps.
        value: of what early stopping compares.
        measured: everything that was measured there, by name.
        seconds: that the trial has trained and measured so far.
        single: whether the study has one objective. With several Optuna keeps no curves, so the trial does itself.
    """
    known = curve(trial.study.get_trials(deepcopy=False)[trial.number])
    if step in known:
        return
    if single:
        trial.report(value, step)
    else:
        trial.set_user_attr(CURVE, {str(at): earlier for at, earlier in (known | {step: value}).items()})
    trial.set_user_attr(STEP, step)
    trial.set_user_attr(METRICS, measured)
    trial.set_user_attr(SECONDS, seconds)


def constrain(trial: optuna.Trial, limits: Mapping[str, float], measured: Mapping[str, float]) -> str:
    """Tell Optuna how far a trial at its full budget is from its limits; samplers lead away from those beyond one.

    Args:
        limits: as `search.constraints`.
        measured: values by name, all of the limits among them.

    Returns:
        Which limits it is beyond, in words; empty where it keeps all. It is kept as the trial's reason.
    """
    known = trial.study.get_trials(deepcopy=False)[trial.number].constraints
    beyond = []
    for name, limit in limits.items():
        over = limit - measured[name] if maximised(name) else measured[name] - limit
        if name not in known:  # a trial whose process died between this and its end reports again
            trial.set_constraint(name, over)
        if over > 0:
            side = "at least" if maximised(name) else "at most"
            beyond.append(f"{name} is {number(measured[name])}, {side} {number(limit)} is wanted")
    if not beyond:
        return ""
    reason = f"beyond search.constraints: {'; '.join(beyond)}"
    trial.set_user_attr(REASON, reason)
    return reason


def earlier_equal(trial: optuna.Trial) -> FrozenTrial | None:
    """The first trial of the study with the parameters of this one, if there is one before it."""
    stored = trial.study.get_trials(deepcopy=False)[: trial.number]
    return next((earlier for earlier in stored if earlier.params == trial.params), None)


def take_over(trial: optuna.Trial, earlier: FrozenTrial) -> None:
    """End a trial as an earlier one with the same parameters ended: seeds are the same, so it would be its copy."""
    attrs = earlier.user_attrs
    trial.set_user_attr(REPEATS, earlier.number)
    trial.set_user_attr(REASON, ": ".join(filter(None, [f"repeats trial {earlier.number}", attrs.get(REASON)])))
    for name in (RUN_ID, CURVE, STEP, METRICS):
        if name in attrs:
            trial.set_user_attr(name, attrs[name])
    for name, over in earlier.constraints.items():
        trial.set_constraint(name, over)
    known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    for step, value in earlier.intermediate_values.items():
        if step not in known:
            trial.report(value, step)
    values = earlier.values if earlier.state == TrialState.COMPLETE else None
    trial.study.tell(trial.number, values, state=earlier.state)


def exhausted(study: optuna.Study, space: SearchSpace) -> bool:
    """Whether the study has a trial of every combination of its space, so that any other would repeat one."""
    combinations, trials = space.num_combinations, study.get_trials(deepcopy=False)
    if combinations is None or len(trials) < combinations:
        return False
    complete = (trial.params for trial in trials if len(trial.params) == len(space.distributions))
    return len({tuple(sorted(params.items())) for params in complete}) == combinations


def curve(trial: FrozenTrial) -> dict[int, float]:
    """Budget -> value of what early stopping compares."""
    kept = {int(step): value for step, value in trial.user_attrs.get(CURVE, {}).items()}
    return kept or dict(trial.intermediate_values)


def records(study: optuna.Study) -> list[TrialRecord]:
    """All trials by number."""
    return [record_of(trial) for trial in study.get_trials(deepcopy=False)]


def record_of(trial: FrozenTrial) -> TrialRecord:
    """A trial of the study as people ask for it."""
    attrs = trial.user_attrs
    states: dict[TrialState, State] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "infeasible" if attrs.get(INFEASIBLE) else "pruned",
        TrialState.FAIL: "failed",
    }
    known = curve(trial)
    return TrialRecord(
        number=trial.number,
        state=states.get(trial.state, "running"),
        step=max(known, default=0),
        values=tuple(trial.values) if trial.state == TrialState.COMPLETE else None,
        last=known[max(known)] if known else None,
        params=decoded(trial.params),
        reason=attrs.get(REASON, ""),
        run_id=attrs.get(RUN_ID, ""),
        seconds=attrs.get(SECONDS, 0.0),
        repeats=attrs.get(REPEATS),
        violates=tuple(sorted(name for name, over in trial.constraints.items() if over > 0)),
    )
