from dataclasses import replace
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from lwddpm.search.definition import Definition, open_study
from lwddpm.search.figures import all_figures
from lwddpm.search.trials import report

DEFINITION = Definition({}, "tpe", 0, ("val/loss",), "asha", "val/loss", 90, 30, 3, "j", "p")
SPACE = {
    "training.lr": FloatDistribution(1e-5, 1e-2, log=True),
    "model.dim_mults": CategoricalDistribution(("[1, 2]", "[1, 2, 4]")),
}


def _filled(tmp_path: Path, *objectives: str) -> optuna.Study:
    definition = replace(DEFINITION, objectives=objectives, prune_on=objectives[0])
    study = open_study(f"sqlite:///{tmp_path}/o.db", "s", definition)
    for number in range(8):
        trial = study.ask(SPACE)
        single = len(objectives) == 1
        report(trial, 30, 2.0 + number, {}, 1.0, single=single)
        if number % 2:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            report(trial, 90, 1.0 + number, {}, 1.0, single=single)
            study.tell(trial, [1.0 + number, 9.0 - number][: len(objectives)])
    return study


def test_a_study_without_trials_has_no_figures(tmp_path: Path) -> None:
    assert all_figures(open_study(f"sqlite:///{tmp_path}/o.db", "s", DEFINITION)) == {}


def test_figures_tell_budgets_apart_and_say_n(tmp_path: Path) -> None:
    found = all_figures(_filled(tmp_path, "val/loss"))
    names = {"history", "learning_curves", "slice", "parallel", "importance"}
    assert found.keys() == {f"study_{name}" for name in names}
    (axes,) = found["study_history"].axes
    assert len(axes.lines[0].get_xdata()) == 4  # complete ones only
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "full budget (n = 4)",
        "best so far",
        "ended early (n = 4)",
    ]
    for figure in found.values():
        figure.canvas.draw()


def test_two_objectives_have_a_front(tmp_path: Path) -> None:
    figure = all_figures(_filled(tmp_path, "val/loss", "parameters"))["study_pareto_front"]
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["beaten (n = 0)", "Pareto front (n = 4)"]
