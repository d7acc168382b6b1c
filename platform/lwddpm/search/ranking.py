"""What a study says: its trials ranked, the Pareto front, what matters, and all of it as JSON and as a table."""

import functools
import math
from collections import Counter
from dataclasses import asdict
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from lwddpm.search.definition import DEFINITION, NUM_SLICES
from lwddpm.search.trials import TrialRecord, record_of, records
from lwddpm.wording import number, with_n

_EXPLAINED_TRIALS = 4  # fewer say nothing about what matters


def ranking(study: optuna.Study) -> list[TrialRecord]:
    """Trials at the full budget, which alone can be compared, by the first objective, best first; none twice, and none
    beyond a constraint."""
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
    complete = [
        (sign * trial.values[0], trial.number, trial)
        for trial in records(study)
        if trial.values is not None and trial.repeats is None and not trial.violates
    ]
    return [trial for value, _, trial in sorted(complete, key=lambda entry: entry[:2]) if math.isfinite(value)]


def pareto_front(study: optuna.Study) -> list[TrialRecord]:
    """Trials that no other beats in every objective; with one objective the best."""
    if len(study.directions) == 1:
        return ranking(study)[:1]
    best = (record_of(trial) for trial in study.best_trials)
    return sorted(
        (trial for trial in best if trial.repeats is None and not trial.violates), key=lambda trial: trial.number
    )


def importance(study: optuna.Study) -> dict[str, dict[str, float]]:
    """For each objective, each parameter's share of the variance that they explain; {} where nothing can be said."""
    by_objective: dict[str, dict[str, float]] = {}
    if len(ranking(study)) < _EXPLAINED_TRIALS:
        return by_objective
    for index, name in enumerate(study.metric_names or ["objective"]):
        try:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            target = functools.partial(_objective_value, index)
            shares = dict(optuna.importance.get_param_importances(study, evaluator=evaluator, target=target))
        except (ValueError, RuntimeError):  # all of one value
            continue
        if shares and all(map(math.isfinite, shares.values())):
            by_objective[name] = shares
    return by_objective


def _objective_value(index: int, trial: FrozenTrial) -> float:
    return float(trial.values[index])


def describe(study: optuna.Study) -> dict[str, Any]:
    """Everything that `lwddpm search show` says, as JSON values."""
    trials, ranked = records(study), ranking(study)
    return {
        "name": study.study_name,
        "objectives": list(study.metric_names or []),
        "n": study.user_attrs.get(NUM_SLICES, {}),
        "definition": study.user_attrs.get(DEFINITION, {}),
        "counts": dict(Counter(trial.state for trial in trials)),
        "steps": sum(trial.step for trial in trials if trial.repeats is None),
        "repeats": sum(trial.repeats is not None for trial in trials),
        "seconds": sum(trial.seconds for trial in trials),
        "best": asdict(ranked[0]) if ranked else None,
        "ranking": [trial.number for trial in ranked],
        "pareto_front": [trial.number for trial in pareto_front(study)],
        "importance": importance(study),
        "trials": [asdict(trial) for trial in trials],
    }


def table(study: optuna.Study) -> str:
    """Markdown: all trials, the full budgets first, best first."""
    trials, ranked = records(study), ranking(study)
    names, keys = list(study.metric_names or []), sorted({key for trial in trials for key in trial.params})
    n = study.user_attrs.get(NUM_SLICES, {})
    head = ["trial", "state", "step", *(with_n(name, n.get(name)) for name in names), "last", *keys, "reason"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    numbers = {trial.number for trial in ranked}
    rest = [trial for trial in trials if trial.number not in numbers]
    for trial in [*ranked, *sorted(rest, key=lambda trial: -trial.step)]:
        values = [number(value) for value in trial.values] if trial.values else ["-"] * len(names)
        last = number(trial.last)
        params = [number(trial.params.get(key), 3) for key in keys]
        cells = [str(trial.number), trial.state, str(trial.step), *values, last, *params, trial.reason]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"
