"""Honest ranking: only what can be compared is."""

from dataclasses import replace

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from lwddpm.config.search import maximised
from lwddpm.search.definition import Definition, open_study
from lwddpm.search.ranking import describe, pareto_front, ranking, table
from lwddpm.search.trials import constrain, curve, records, report, take_over

SPACE = {
    "training.lr": FloatDistribution(1e-5, 1e-2, log=True),
    "model.se_reduction": IntDistribution(2, 64, log=True),
    "diffusion.beta_schedule": CategoricalDistribution(("linear", "cosine")),
}


def _tell(study: optuna.Study, points: dict[int, float], state: TrialState, **attrs: object) -> None:
    trial = study.ask(SPACE)
    for step, value in points.items():
        report(trial, step, value, {"eval/fd_lite0": value}, 1.0, single=len(study.directions) == 1)
    for name, value in attrs.items():
        trial.set_user_attr(f"lwddpm.{name}", value)
    study.tell(trial, list(points.values())[-1:] if state == TrialState.COMPLETE else None, state=state)


def test_only_equal_budgets_are_ranked(url: str, definition: Definition) -> None:
    study = open_study(url, "s", definition)
    _tell(study, {30: 50.0, 90: 20.0}, TrialState.COMPLETE)
    _tell(study, {30: 1.0}, TrialState.PRUNED)  # the lowest value of all, at a third of the budget
    _tell(study, {30: 40.0, 90: 10.0}, TrialState.COMPLETE)
    _tell(study, {}, TrialState.FAIL, reason="diverged")
    _tell(study, {}, TrialState.PRUNED, reason="cannot be built", infeasible=True)
    study.ask(SPACE)
    states = [(trial.state, trial.step, trial.last) for trial in records(study)]
    assert states == [
        ("complete", 90, 20.0),
        ("pruned", 30, 1.0),
        ("complete", 90, 10.0),
        ("failed", 0, None),
        ("infeasible", 0, None),
        ("running", 0, None),
    ]
    assert [trial.number for trial in ranking(study)] == [2, 0]
    assert [trial.number for trial in pareto_front(study)] == [2]
    described = describe(study)
    assert described["best"]["number"] == 2
    assert described["counts"] == {"complete": 2, "pruned": 1, "failed": 1, "infeasible": 1, "running": 1}
    assert "diverged" in table(study)


def test_a_trial_beyond_a_constraint_is_never_chosen(url: str, definition: Definition) -> None:
    limits = {"audit/copied_share": 0.02, "eval/recall_lite0": 0.1}
    study = open_study(url, "limits", replace(definition, constraints=limits))
    for value, copied, recall in ((10.0, 0.5, 0.9), (20.0, 0.02, 0.05), (30.0, 0.02, 0.1), (40.0, 0.0, 0.9)):
        trial = study.ask(SPACE)
        reason = constrain(trial, limits, {"audit/copied_share": copied, "eval/recall_lite0": recall})
        assert bool(reason) == (trial.number < 2)
        assert constrain(trial, limits, {"audit/copied_share": copied, "eval/recall_lite0": recall}) == reason
        study.tell(trial, [value])
    assert [trial.number for trial in ranking(study)] == [2, 3]
    assert [trial.number for trial in pareto_front(study)] == [2]
    assert study.best_trial.number == 2, "Optuna itself knows of the constraints"
    assert [trial.violates for trial in records(study)] == [("audit/copied_share",), ("eval/recall_lite0",), (), ()]
    assert [trial.state for trial in records(study)] == ["complete"] * 4
    assert "audit/copied_share is 0.5, at most 0.02 is wanted" in records(study)[0].reason
    assert "eval/recall_lite0 is 0.05, at least 0.1 is wanted" in table(study)
    again = study.ask(SPACE)
    take_over(again, study.trials[0])
    assert records(study)[again.number].violates == ("audit/copied_share",)


def test_a_copier_is_on_no_front(url: str, definition: Definition) -> None:
    limits = {"audit/copied_share": 0.0}
    definition = replace(definition, objectives=("eval/fd_lite0", "parameters"), constraints=limits)
    study = open_study(url, "front", definition)
    for values, copied in (([1.0, 1.0], 0.1), ([5.0, 9.0], 0.0), ([9.0, 5.0], 0.0), ([9.0, 9.0], 0.0)):
        trial = study.ask(SPACE)
        constrain(trial, limits, {"audit/copied_share": copied})
        study.tell(trial, values)
    assert [trial.number for trial in pareto_front(study)] == [1, 2]


def test_realism_and_variety_are_maximised_and_make_a_front(url: str, definition: Definition) -> None:
    names = ("eval/precision_lite0", "eval/recall_lite0", "eval/density_lite0", "eval/coverage_lite0")
    study = open_study(url, "pr", replace(definition, objectives=names[:2], prune_on="eval/fd_lite0"))
    for values in ([0.9, 0.2], [0.5, 0.6], [0.4, 0.5]):
        study.tell(study.ask(SPACE), values)
    assert [trial.number for trial in pareto_front(study)] == [0, 1]
    assert all(maximised(name) for name in names)
    assert not maximised("eval/fd_lite0")
    assert not maximised("val/loss")


def test_several_objectives_keep_curves_too_and_ssim_is_maximised(url: str, definition: Definition) -> None:
    definition = replace(definition, objectives=("eval/ssim_nearest", "parameters"), prune_on="eval/ssim_nearest")
    study = open_study(url, "mo", definition)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for values in ([0.5, 10.0], [0.9, 20.0], [0.4, 30.0]):
        trial = study.ask(SPACE)
        for step in (30, 90, 90):  # a rung told twice changes nothing
            report(trial, step, values[0], {}, 1.0, single=False)
        study.tell(trial, values)
    assert [trial.number for trial in ranking(study)] == [1, 0, 2]
    assert [trial.number for trial in pareto_front(study)] == [0, 1]
    assert curve(study.trials[0]) == {30: 0.5, 90: 0.5}
