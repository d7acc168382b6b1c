"""Proposals depend on the seed, the trial's number and the study alone."""

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
        study.sampler = sampler_for(sampler, 3, number, objectives)
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
