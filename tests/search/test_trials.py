"""Trials in the study: written by one session, continued by the next."""

import optuna
import pytest
from optuna.distributions import FloatDistribution

from lwddpm.search.definition import Definition, open_study
from lwddpm.search.trials import REASON, curve, records, report, resumed_trial

LR = {"training.lr": FloatDistribution(1e-5, 1e-2, log=True)}


def test_this_optuna_lets_a_running_trial_of_an_earlier_session_be_continued(url: str, definition: Definition) -> None:
    """Fails where a new Optuna keeps the id of a trial elsewhere: `resumed_trial` needs it, and nothing else does."""
    first = open_study(url, "s", definition)
    first.tell(first.ask(LR), 1.0)
    interrupted = first.ask(LR)
    report(interrupted, 30, 0.7, {"eval/fd_lite0": 0.7}, 1.5, single=True)
    study = open_study(url, "s", definition)
    trial = resumed_trial(study, 1)
    assert trial.number == 1
    assert trial.suggest_float("training.lr", 1e-5, 1e-2, log=True) == interrupted.params["training.lr"]
    report(trial, 30, 0.7, {"eval/fd_lite0": 0.7}, 1.5, single=True)
    report(trial, 90, 0.5, {"eval/fd_lite0": 0.5}, 4.5, single=True)
    trial.set_user_attr(REASON, "none")
    study.tell(trial.number, 0.5)
    assert curve(study.get_trials()[1]) == {30: 0.7, 90: 0.5}
    assert [(record.state, record.step, record.seconds) for record in records(study)][1] == ("complete", 90, 4.5)


def test_an_optuna_that_hides_the_id_is_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    stored = study.get_trials
    study.ask()

    def without_id(deepcopy: bool = True) -> list[optuna.trial.FrozenTrial]:
        trials = stored(deepcopy=True)
        for trial in trials:
            del trial._trial_id
        return trials

    monkeypatch.setattr(study, "get_trials", without_id)
    with pytest.raises(RuntimeError, match=r"trial 0 cannot be continued; install the tested versions"):
        resumed_trial(study, 0)
