"""Proposals depend on the seed, the trial's number and the study alone."""

import itertools
from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lwddpm.search.definition import Definition, open_study
from lwddpm.search.proposals import sampler_for, suggest

SPACE = {
    "training.lr": FloatDistribution(1e-5, 1e-2, log=True),
    "model.se_reduction": IntDistribution(2, 64, log=True),
    "diffusion.beta_schedule": CategoricalDistribution(("linear", "cosine")),
}


def _ask(study: optuna.Study, sampler: str, num: int, objectives: int = 1) -> list[dict[str, object]]:
    """Ask and tell `num` more trials as the searcher does."""
    proposals = []
    for _ in range(num):
        number = len(study.get_trials(deepcopy=False))
        study.sampler = sampler_for(sampler, 3, number, objectives, SPACE)
        trial = study.ask()
        params = suggest(trial, SPACE)
        value = abs(params["training.lr"] - 1e-3) + params["model.se_reduction"] / 1000
        study.tell(trial, [value] * objectives)
        proposals.append(params)
    return proposals


@pytest.mark.parametrize(("sampler", "objectives"), [("tpe", 1), ("random", 1), ("cmaes", 1), ("qmc", 1), ("nsga2", 2)])
def test_a_search_cut_in_two_proposes_what_one_in_a_piece_does(
    sampler: str, objectives: int, url: str, definition: Definition
) -> None:
    definition = replace(definition, sampler=sampler, objectives=("val/loss", "parameters")[:objectives])
    whole = _ask(open_study(url, "whole", definition), sampler, 24, objectives)
    first = _ask(open_study(url, "cut", definition), sampler, 13, objectives)
    second = _ask(open_study(url, "cut", definition), sampler, 11, objectives)
    assert first + second == whole
    assert len({tuple(proposal.values()) for proposal in whole[:10]}) == 10, "first draws repeat"


def test_tpe_has_learnt_after_a_dozen_trials(url: str, definition: Definition) -> None:
    values = {}
    for sampler in ("tpe", "random"):
        study = open_study(url, sampler, replace(definition, sampler=sampler))
        _ask(study, sampler, 24)
        values[sampler] = np.median([trial.value for trial in study.get_trials()[12:]])
    assert values["tpe"] < 0.5 * values["random"]


GRID = {
    "training.lr": FloatDistribution(1e-4, 4e-4, step=1e-4),
    "model.se_reduction": IntDistribution(2, 6, step=2),
    "model.dim_mults": CategoricalDistribution(("[1, 2]", None)),
}


def _ask_grid(study: optuna.Study, num: int) -> list[dict[str, object]]:
    proposals = []
    for _ in range(num):
        study.sampler = sampler_for("grid", 3, len(study.get_trials(deepcopy=False)), 1, GRID)
        trial = study.ask()
        proposals.append(suggest(trial, GRID))
        study.tell(trial, 1.0)
    return proposals


def test_a_grid_proposes_every_combination_once_also_when_it_is_cut(url: str, definition: Definition) -> None:
    whole = _ask_grid(open_study(url, "whole", definition), 24)
    expected = itertools.product((1e-4, 2e-4, 3e-4, 4e-4), (2, 4, 6), ("[1, 2]", None))
    proposed = [(float(f"{p['training.lr']:.9g}"), p["model.se_reduction"], p["model.dim_mults"]) for p in whole]
    assert set(proposed) == set(expected)
    assert len(set(proposed)) == len(proposed)
    assert proposed != sorted(proposed, key=str), "shuffled, so that a part of a grid is spread over it"
    cut = open_study(url, "cut", definition)
    cut.ask()  # its process was killed; the trial is handed out again under its number
    assert _ask_grid(open_study(url, "cut", definition), 23) == whole[1:]
