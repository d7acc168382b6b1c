from collections.abc import Callable
from pathlib import Path

from lwddpm.cli.views import search as views
from lwddpm.search.definition import NUM_SLICES, Definition, open_study
from lwddpm.search.ranking import describe, table
from lwddpm.search.trials import report

Printed = Callable[[], str]


def test_a_study_has_n_beside_its_objectives(printed: Printed, tmp_path: Path) -> None:
    objectives = ("eval/fd_lite0", "parameters")
    definition = Definition({}, "tpe", 0, objectives, "asha", "val/loss", 90, 30, 3, "j", "p")
    study = open_study(f"sqlite:///{tmp_path}/o.db", "s", definition)
    study.set_user_attr(NUM_SLICES, {"eval/fd_lite0": 2, "val/loss": 6})
    trial = study.ask()
    report(trial, 90, 0.5, {}, 1.0, single=False)
    study.tell(trial, [12.5, 360.0])
    described = describe(study)
    assert described["n"] == {"eval/fd_lite0": 2, "val/loss": 6}
    views.study(described)
    text = printed()
    assert "eval/fd_lite0 (n = 2)" in text
    assert "val/loss (n = 6)" in text
    assert "┃ parameters ┃" in text
    assert "| eval/fd_lite0 (n = 2) | parameters |" in table(study)
