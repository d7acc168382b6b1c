"""Early stopping: as Ray Tune's schedulers decide, the same for a study that was killed, and fair to the best."""

from collections import defaultdict
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from lwddpm.search.stopping import StoppingRule, asha, median
from lwddpm.search.trials import curve, report, resumed_trial

RUNGS = (20, 60, 180, 540)
Curves = list[dict[int, float]]


class _TuneTrial(NamedTuple):
    """What Ray Tune's schedulers look at of a trial."""

    trial_id: str


def _curves(seed: int, num: int) -> Curves:
    """Random learning curves over `RUNGS`, with a few equal values among them."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(num, 1)) + random.normal(size=(num, len(RUNGS)))
    return [dict(zip(RUNGS, map(float, row), strict=True)) for row in values.round(1)]


def _order(seed: int, num: int) -> list[int]:
    """Which trial reports next; each is named once for every rung."""
    return [int(trial) for trial in np.random.default_rng(seed).permutation(np.repeat(np.arange(num), len(RUNGS)))]


@pytest.mark.parametrize("maximise", [False, True])
@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_asha_decides_as_ray_tune_does(seed: int, factor: int, maximise: bool) -> None:
    from ray.tune.schedulers import ASHAScheduler

    rungs = tuple(10 * factor**k for k in range(4))
    curves = [dict(zip(rungs, points.values(), strict=True)) for points in _curves(seed, 40)]
    tune: Any = ASHAScheduler(
        time_attr="step",
        metric="value",
        mode="max" if maximise else "min",
        grace_period=rungs[0],
        max_t=rungs[-1],
        reduction_factor=factor,
    )
    known: dict[int, dict[int, float]] = defaultdict(dict)
    ended = set()
    decisions = []
    for number in _order(seed, 40):
        step = rungs[len(known[number])]
        if number in ended or step == rungs[-1]:  # Tune does not ask at the end
            continue
        trial, value = _TuneTrial(str(number)), curves[number][step]
        if not known[number]:
            tune.on_trial_add(None, trial)
        others = [points for other, points in known.items() if other != number]
        ours = asha(step, value, others, reduction_factor=factor, maximise=maximise)
        theirs = tune.on_trial_result(None, trial, {"step": step, "value": value}) == "STOP"
        assert ours == theirs, (number, step)
        known[number][step] = value
        decisions.append(ours)
        if ours:
            ended.add(number)
    assert True in decisions
    assert False in decisions


@pytest.mark.parametrize("maximise", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_median_rule_decides_as_ray_tune_does(seed: int, maximise: bool) -> None:
    from ray.tune.schedulers import MedianStoppingRule

    curves = _curves(seed, 40)
    mode = "max" if maximise else "min"
    tune: Any = MedianStoppingRule(time_attr="step", metric="value", mode=mode, grace_period=RUNGS[0])
    nobody_waits = SimpleNamespace(get_live_trials=list)
    # Not told to Tune: that a trial has ended. It would count the trial's last value twice in its mean.
    known: dict[int, dict[int, float]] = defaultdict(dict)
    ended = set()
    for number in _order(seed, 40):
        if number in ended:
            continue
        step = RUNGS[len(known[number])]
        value = curves[number][step]
        others = [points for other, points in known.items() if other != number]
        known[number][step] = value
        ours = median(step, known[number], others, maximise=maximise)
        theirs = tune.on_trial_result(nobody_waits, _TuneTrial(str(number)), {"step": step, "value": value})
        assert ours == (theirs == "STOP"), (number, step)
        if ours:
            ended.add(number)
    assert 0 < len(ended) < 40


@pytest.mark.parametrize("scheduler", ["asha", "median"])
@pytest.mark.parametrize("maximise", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_of_nine_the_worst_is_ended_and_the_best_never(scheduler: str, maximise: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    qualities = sorted(random.normal(size=9), reverse=maximise)  # best first
    curves = [{step: float(quality) for step in RUNGS} for quality in qualities]
    study = optuna.create_study(direction="maximize" if maximise else "minimize")
    rule = StoppingRule(scheduler, 3, maximise)
    for number in (*(int(n) for n in random.permutation(8)), 8):  # the worst meets all others
        ended = _run(study, rule, curves[number], RUNGS[:-1])
        if number == 0:
            assert not ended
    assert ended


def _run(study: optuna.Study, rule: StoppingRule, points: dict[int, float], rungs: Iterable[int]) -> bool:
    """Ask for a trial and take it as far as the rule lets it."""
    trial = study.ask()
    return any(_reach(trial, rule, step, points[step]) for step in rungs)


def _reach(trial: optuna.Trial, rule: StoppingRule, step: int, value: float) -> bool:
    """What Ray Tune and the searcher do at a rung."""
    ends = rule.ends(trial, step, value)
    report(trial, step, value, {}, 1.0, single=True)
    if ends:
        trial.study.tell(trial.number, state=TrialState.PRUNED)
    return ends


@pytest.mark.parametrize("scheduler", ["asha", "median"])
@pytest.mark.parametrize("seed", range(4))
def test_a_study_that_was_killed_decides_as_an_undisturbed_one(scheduler: str, seed: int) -> None:
    curves, order, rule = _curves(seed, 12), _order(seed, 12), StoppingRule(scheduler, 3, maximise=False)
    undisturbed = _play(optuna.create_study(), rule, curves, order, kill_at=())
    killed = _play(optuna.create_study(), rule, curves, order, kill_at=range(1, len(order), 5))
    assert killed == undisturbed
    assert 0 < sum(max(points) < RUNGS[-1] for points in undisturbed) < 12


def _play(
    study: optuna.Study, rule: StoppingRule, curves: Curves, order: list[int], kill_at: Iterable[int]
) -> list[dict[int, float]]:
    """Have trials report in this order; after each kill those RUNNING are continued and report again from the start.

    Every other kill comes when early stopping has decided, and before the study has the value.
    """
    trials = [study.ask() for _ in curves]
    reached: dict[int, int] = defaultdict(int)
    for position, number in enumerate(order):
        stored = study.get_trials(deepcopy=False)
        if stored[number].state != TrialState.RUNNING:
            continue
        step = RUNGS[reached[number]]
        if position in kill_at:
            if position % 2 and step != RUNGS[-1]:
                rule.ends(trials[number], step, curves[number][step])
            for running in [trial.number for trial in stored if trial.state == TrialState.RUNNING]:
                trials[running] = resumed_trial(study, running)
                for again in RUNGS[: reached[running]]:
                    assert not _reach(trials[running], rule, again, curves[running][again])
        reached[number] += 1
        if step == RUNGS[-1]:
            report(trials[number], step, curves[number][step], {}, 1.0, single=True)
            study.tell(number, curves[number][step])
        else:
            _reach(trials[number], rule, step, curves[number][step])
    return [curve(trial) for trial in study.get_trials()]


def test_without_early_stopping_none_is_ended() -> None:
    study = optuna.create_study()
    ended = [_run(study, StoppingRule("none", 3, maximise=False), points, RUNGS[:-1]) for points in _curves(0, 9)]
    assert not any(ended)
