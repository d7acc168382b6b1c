"""The study as a record: resumed samplers, refused changes, honest ranking."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from lwddpm.errors import ConfigError
from lwddpm.search import study as record

SPACE = {
    "training.lr": FloatDistribution(1e-5, 1e-2, log=True),
    "model.se_reduction": IntDistribution(2, 64, log=True),
    "diffusion.beta_schedule": CategoricalDistribution(("linear", "cosine")),
}
DEFINITION = record.Definition(
    space={"training.lr": {"name": "FloatDistribution", "attributes": {"low": 1e-5, "high": 1e-2}}},
    sampler="tpe",
    seed=0,
    objectives=("eval/fd_lite0",),
    scheduler="asha",
    prune_on="eval/fd_lite0",
    max_steps=90,
    grace_steps=30,
    reduction_factor=3,
    job="j",
    proxy="p",
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"


def _ask(study: optuna.Study, sampler: str, num: int, objectives: int = 1) -> list[dict[str, object]]:
    """Ask and tell `num` more trials as the searcher does."""
    proposals = []
    for _ in range(num):
        number = len(study.get_trials(deepcopy=False))
        study.sampler = record.sampler_for(sampler, 3, number, objectives)
        trial = study.ask()
        params = record.suggest(trial, SPACE)
        value = abs(params["training.lr"] - 1e-3) + params["model.se_reduction"] / 1000
        study.tell(trial, [value] * objectives)
        proposals.append(params)
    return proposals


@pytest.mark.parametrize(("sampler", "objectives"), [("tpe", 1), ("random", 1), ("cmaes", 1), ("qmc", 1), ("nsga2", 2)])
def test_a_search_cut_in_two_proposes_what_one_in_a_piece_does(
    sampler: str, objectives: int, url: str, tmp_path: Path
) -> None:
    definition = replace(DEFINITION, sampler=sampler, objectives=("val/loss", "parameters")[:objectives])
    whole = _ask(record.open_study(url, "whole", definition), sampler, 24, objectives)
    first = _ask(record.open_study(url, "cut", definition), sampler, 13, objectives)
    second = _ask(record.open_study(url, "cut", definition), sampler, 11, objectives)
    assert first + second == whole
    assert len({tuple(proposal.values()) for proposal in whole[:10]}) == 10, "first draws repeat"


def test_tpe_has_learnt_after_a_dozen_trials(url: str) -> None:
    values = {}
    for sampler in ("tpe", "random"):
        study = record.open_study(url, sampler, replace(DEFINITION, sampler=sampler))
        _ask(study, sampler, 24)
        values[sampler] = np.median([trial.value for trial in study.get_trials()[12:]])
    assert values["tpe"] < 0.5 * values["random"]


def test_what_a_study_compares_cannot_change(url: str) -> None:
    record.open_study(url, "s", DEFINITION)
    record.open_study(url, "s", DEFINITION)
    other = {"training.lr": {"name": "FloatDistribution", "attributes": {"low": 1e-5, "high": 1e-1}}}
    with pytest.raises(ConfigError) as error:
        record.open_study(url, "s", replace(DEFINITION, space=other, sampler="random", max_steps=100))
    assert "search.sampler was tpe, is random" in str(error.value)
    assert "search.max_steps was 90, is 100" in str(error.value)
    assert "training.lr was float (low 1e-05, high 0.01), is float (low 1e-05, high 0.1)" in str(error.value)
    optuna.create_study(study_name="foreign", storage=url)
    with pytest.raises(ConfigError, match="not made by lwddpm"):
        record.open_study(url, "foreign", DEFINITION)


def _tell(study: optuna.Study, curve: dict[int, float], state: TrialState, **attrs: object) -> None:
    trial = study.ask(SPACE)
    for step, value in curve.items():
        record.report(trial, step, value, {"eval/fd_lite0": value}, 1.0, single=len(study.directions) == 1)
    for name, value in attrs.items():
        trial.set_user_attr(f"lwddpm.{name}", value)
    study.tell(trial, list(curve.values())[-1:] if state == TrialState.COMPLETE else None, state=state)


def test_only_equal_budgets_are_ranked(url: str) -> None:
    study = record.open_study(url, "s", DEFINITION)
    _tell(study, {30: 50.0, 90: 20.0}, TrialState.COMPLETE)
    _tell(study, {30: 1.0}, TrialState.PRUNED)  # the lowest value of all, at a third of the budget
    _tell(study, {30: 40.0, 90: 10.0}, TrialState.COMPLETE)
    _tell(study, {}, TrialState.FAIL, reason="diverged")
    _tell(study, {}, TrialState.PRUNED, reason="cannot be built", infeasible=True)
    study.ask(SPACE)
    states = [(found.state, found.step, found.last) for found in record.records(study)]
    assert states == [
        ("complete", 90, 20.0),
        ("pruned", 30, 1.0),
        ("complete", 90, 10.0),
        ("failed", 0, None),
        ("infeasible", 0, None),
        ("running", 0, None),
    ]
    assert [found.number for found in record.ranking(study)] == [2, 0]
    assert [found.number for found in record.pareto_front(study)] == [2]
    described = record.describe(study)
    assert described["best"]["number"] == 2
    assert described["counts"] == {"complete": 2, "pruned": 1, "failed": 1, "infeasible": 1, "running": 1}
    assert "diverged" in record.table(study)


def test_several_objectives_keep_curves_too_and_ssim_is_maximised(url: str) -> None:
    definition = replace(DEFINITION, objectives=("eval/ssim_nearest", "parameters"), prune_on="eval/ssim_nearest")
    study = record.open_study(url, "mo", definition)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for values in ([0.5, 10.0], [0.9, 20.0], [0.4, 30.0]):
        trial = study.ask(SPACE)
        for step in (30, 90, 90):  # a rung told twice changes nothing
            record.report(trial, step, values[0], {}, 1.0, single=False)
        study.tell(trial, values)
    assert [found.number for found in record.ranking(study)] == [1, 0, 2]
    assert [found.number for found in record.pareto_front(study)] == [0, 1]
    assert record.curve(study.trials[0]) == {30: 0.5, 90: 0.5}


def test_reading_a_study_creates_nothing(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="no such study"):
        record.find_study(url, "none")
    assert list(tmp_path.iterdir()) == []
    record.open_study(url, "mine", DEFINITION)
    with pytest.raises(ConfigError, match="known: mine"):
        record.find_study(url, "yours")
    record.delete_study(url, "mine")
    record.delete_study(url, "mine")
    with pytest.raises(ConfigError, match="it has none"):
        record.find_study(url, "mine")


def test_a_storage_that_would_break_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record.check_storage(f"sqlite:///{tmp_path}/optuna.db")
    record.check_storage("postgresql+psycopg://someone@host/studies")
    with pytest.raises(ConfigError, match="must begin with sqlite"):
        record.check_storage("redis://host")
    with pytest.raises(ConfigError, match="must exist"):
        record.check_storage(f"sqlite:///{tmp_path}/none/optuna.db")
    monkeypatch.setattr(record, "file_system", lambda folder: "nfs4")
    with pytest.raises(ConfigError, match="local disk, or PostgreSQL"):
        record.check_storage(f"sqlite:///{tmp_path}/optuna.db")


def test_the_file_system_of_a_folder_is_that_of_its_deepest_mount() -> None:
    assert record.file_system(Path("/proc/self")) == "proc"
