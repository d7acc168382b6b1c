"""What a person reads on the terminal: no figure without the number of slices that it stands for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lwddpm.cli import views
from lwddpm.search.definition import NUM_SLICES, Definition, open_study
from lwddpm.search.ranking import describe, table
from lwddpm.search.trials import report

Printed = Callable[[], str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    return lambda: " ".join(capsys.readouterr().out.split())


def test_the_end_of_a_job_says_n_beside_its_metrics(printed: Printed) -> None:
    metrics = {"eval/fd_lite0": 12.5, "eval/fd_lite0_floor": 3.25, "eval/ssim_reconstruction": 0.75}
    views.summary({"metrics": metrics, "n": {"eval/fd_lite0": 2, "eval/ssim_reconstruction": 64}})
    text = printed()
    assert "eval/fd_lite0 │ 12.5 │ 2 │ 3.25" in text
    assert "eval/ssim_reconstruction │ 0.75 │ 64 │" in text
    views.summary({"metrics": metrics})  # kept by 0.1.0
    assert "eval/fd_lite0 │ 12.5 │ - │ 3.25" in printed()


def test_a_comparison_says_what_does_not_beat_the_baseline(printed: Printed) -> None:
    result = {
        "statements": {},
        "measured_on": {},
        "report": "report.html",
        "baseline": {
            "gan": {"name": "GAN", "beats": False},
            "ddpm/noise": {"name": "DDPM, start from noise", "beats": False},
            "lw_ddpm": {"name": "LW-DDPM", "beats": True},
        },
    }
    views.report(result)
    assert "GAN and DDPM (start from noise) do not beat a Gaussian of the training slices" in printed()
    views.summary({"statements": {"lighter": "supports"}, "baseline": {"gan": {"name": "GAN", "beats": True}}})
    assert "every system beats a Gaussian" in printed()
    views.summary({"statements": {"lighter": "supports"}})  # of an earlier version
    assert "Gaussian" not in printed()


def test_models_have_n_beside_their_metrics(printed: Printed) -> None:
    item: dict[str, Any] = {
        "name": "lw-ddpm",
        "version": 1,
        "aliases": ["candidate"],
        "created": "today",
        "run_id": "r",
        "tags": {},
        "withdrawn": 0,
    }
    item |= {"metrics": {"eval/fd_lite0": 12.5, "eval/fd_lite0_floor": 3.25}, "n": {"eval/fd_lite0": 2}}
    views.versions([item])
    assert "fd_lite0 12.5 (n = 2)" in printed()
    views.version(item | {"tags": {}, "promotions": [], "card": ""})
    assert "eval/fd_lite0 │ 12.5 │ 2 │ 3.25" in printed()


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


def test_statements_have_what_they_were_measured_on(printed: Printed) -> None:
    views.report({"statements": {"lighter": "supports"}, "measured_on": {"lighter": "counted"}, "report": "r.html"})
    assert "LW-DDPM has fewer parameters than DDPM │ supports │ counted" in printed()
