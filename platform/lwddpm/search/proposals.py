"""Proposing a trial's parameters: the sampler of each trial, and the parameters that it suggests."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler

# That TPE draws at random before it models anything: half of Optuna's default, since searches here have tens of trials
_STARTUP_TRIALS = 5


def sampler_for(
    name: str, seed: int, number: int, objectives: int, distributions: Mapping[str, BaseDistribution]
) -> BaseSampler:
    """The sampler that proposes trial `number`.

    Made anew for every proposal, from (seed, number): so a search that was killed goes on as an undisturbed one
    would, instead of drawing its first random numbers again. What else a sampler knows it reads from the study.
    """
    own = (seed * 1_000_003 + number) % 2**32
    match name:
        case "random":
            return optuna.samplers.RandomSampler(seed=own)
        case "cmaes":
            return optuna.samplers.CmaEsSampler(seed=own, warn_independent_sampling=False)
        case "qmc":
            # one sequence for all trials; its position is kept in the study
            return optuna.samplers.QMCSampler(
                seed=seed, scramble=True, warn_independent_sampling=False, warn_asynchronous_seeding=False
            )
        case "grid":
            # its order, which the seed shuffles once, gives each trial number its combination
            return _Grid({name: _values(each) for name, each in distributions.items()}, seed=seed % 2**32)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=own, population_size=20)
    return optuna.samplers.TPESampler(
        seed=own, n_startup_trials=_STARTUP_TRIALS, multivariate=objectives == 1, constant_liar=True
    )


class _Grid(optuna.samplers.GridSampler):
    def after_trial(self, *outcome: Any) -> None:
        """Nothing: Optuna's stops the study after the last combination, which only `Study.optimize` allows."""


def _values(distribution: BaseDistribution) -> list[Any]:
    """All values of a parameter of a grid, in order."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return list(choices)
        case IntDistribution(low=low, high=high, step=step):
            return list(range(low, high + 1, step))
        case FloatDistribution(low=low, high=high, step=float(step)):
            return [min(low + index * step, high) for index in range(round((high - low) / step) + 1)]
    raise TypeError(f"{distribution!r} has no grid")


def suggest(trial: optuna.Trial, distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Parameters of a trial: those it has, and proposals for those it has not."""
    return {name: _suggest_one(trial, name, distribution) for name, distribution in distributions.items()}


def _suggest_one(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise TypeError(f"unknown distribution {distribution!r}")
