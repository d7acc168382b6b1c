"""Search spaces: YAML files of dotted job keys, each with `float`, `int` or `categorical`; search_spaces/README.md."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from lwddpm import families
from lwddpm.config import SearchJob, TrainJob
from lwddpm.config.keys import key_hint, known_keys
from lwddpm.config.training import NORMAL_LOG_SIGMA
from lwddpm.errors import ConfigError
from lwddpm.jobfile import find_file, read_mapping, set_value, validate_job

MAX_COMBINATIONS = 10_000  # of a grid: more than any study is made for
_SECTIONS = ("model", "diffusion", "adversarial", "training")
_NOT_SEARCHED = {
    **dict.fromkeys(("training.max_steps", "training.epochs"), "is the budget, which search.max_steps gives"),
    **dict.fromkeys(
        (
            "training.snapshot_epochs",
            "training.guide_epoch",
            "training.log_every_steps",
            "training.keep_checkpoints",
            "training.checkpoint_every_epochs",
            "training.validation_samples",
        ),
        "does not change what is learnt",
    ),
}


@dataclass(frozen=True)
class SearchSpace:
    """What a search varies.

    Attributes:
        distributions: dotted job key -> Optuna distribution, in the order of the file. Choices that Optuna cannot
            store, such as lists, stand there as JSON text.
    """

    distributions: dict[str, BaseDistribution]

    def describe(self) -> dict[str, Any]:
        """As JSON values; equal for equal spaces, whatever their files look like."""
        return {
            key: json.loads(distribution_to_json(distribution))
            for key, distribution in sorted(self.distributions.items())
        }

    @property
    def num_combinations(self) -> int | None:
        """How many different trials there can be; None where a parameter takes any value of a range."""
        counts = [num_values(distribution) for distribution in self.distributions.values()]
        return math.prod(count for count in counts if count is not None) if None not in counts else None

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:12]


def num_values(distribution: BaseDistribution) -> int | None:
    """How many values a parameter can take; None for any of a range."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return len(choices)
        case IntDistribution(low=low, high=high, step=step):
            return (high - low) // step + 1
        case FloatDistribution(low=low, high=high, step=float(step)):
            return round((high - low) / step) + 1
    return None


def num_trials(job: SearchJob, space: SearchSpace) -> int:
    """Trials of the whole study. A grid has one for each combination, `search.num_trials` at most."""
    if job.search.sampler != "grid":
        assert job.search.num_trials is not None
        return job.search.num_trials
    combinations = space.num_combinations
    assert combinations is not None
    return min(combinations, job.search.num_trials or combinations)


def decoded(params: Mapping[str, Any]) -> dict[str, Any]:
    """Job values of Optuna's parameters: lists back from JSON text."""
    return {key: json.loads(value) if _is_json(value) else value for key, value in params.items()}


def _is_json(value: Any) -> bool:
    return isinstance(value, str) and value[:1] in ("[", "{")


def load_space(reference: str, job: SearchJob) -> SearchSpace:
    """Read a search space and check it against the job that it varies.

    Args:
        reference: path of a YAML file, or name of a shipped space such as `paper`.

    Raises:
        ConfigError: one line for each broken rule: file, line, key, rule, value.
    """
    path = find_file(reference, "search_spaces", "search space")
    values, origins = read_mapping(path, "a search space is a mapping of job keys, such as training.lr")
    if not values:
        raise ConfigError(f"{path}: a search space must have at least one key, got none; add one, such as training.lr")
    distributions, errors = {}, []
    for key, spec in values.items():
        try:
            distributions[key] = _distribution(key, spec, job)
        except ConfigError as error:
            errors.append(f"{origins.get(str(key), path)}: {key}: {error}")
    if errors:
        raise ConfigError("\n".join(errors))
    _refuse_incomparable_losses(job, distributions, str(path))
    space = SearchSpace(distributions)
    if job.search.sampler == "grid":
        _refuse_what_has_no_grid(space, str(path))
    return space


def _refuse_what_has_no_grid(space: SearchSpace, path: str) -> None:
    ranges = [
        key
        for key, distribution in space.distributions.items()
        if num_values(distribution) is None or getattr(distribution, "log", False)
    ]
    if ranges:
        raise ConfigError(
            f"search.sampler: grid takes every combination, and {', '.join(ranges)} in {path} is a range without "
            "steps; give it a step (without log) or list its values as categorical, or choose another sampler"
        )
    if (combinations := space.num_combinations or 0) > MAX_COMBINATIONS:
        raise ConfigError(
            f"search.sampler: a grid must have at most {MAX_COMBINATIONS:,} combinations, {path} has {combinations:,}; "
            "take larger steps or fewer values, or choose another sampler"
        )


def _refuse_incomparable_losses(job: SearchJob, keys: Mapping[str, Any], path: str) -> None:
    compared = {
        *job.search.objectives,
        *job.search.constraints,
        *({job.search.pruned_on} if job.search.scheduler != "none" else ()),
    }
    varied = [key for key, values in keys.items() if _changes_the_loss(key, values)]
    if "val/loss" in compared and varied:
        raise ConfigError(
            f"search.objectives: val/loss cannot compare trials that differ in {', '.join(varied)} ({path}): the loss "
            "itself changes with it; use eval/fd_lite0"
        )


def _changes_the_loss(key: str, values: Any) -> bool:
    if key == "training.timestep_sampling":
        return bool(set(NORMAL_LOG_SIGMA) & set(values.choices))
    return key.startswith(("diffusion.", "training.log_sigma_"))


def _distribution(key: Any, spec: Any, job: SearchJob) -> BaseDistribution:
    if key not in known_keys(TrainJob):
        raise ConfigError(f"unknown key; {key_hint(str(key), TrainJob)}")
    if key in _NOT_SEARCHED:
        raise ConfigError(f"cannot be searched: it {_NOT_SEARCHED[key]}; leave it out")
    if key.partition(".")[0] not in _SECTIONS:
        raise ConfigError(f"cannot be searched: trials differ in {', '.join(_SECTIONS)} only; leave it out")
    kind, options = next(iter(spec.items())) if isinstance(spec, dict) and len(spec) == 1 else (None, None)
    if kind not in _KINDS:
        raise ConfigError(f"must be one of float: {{low, high}}, int: {{low, high}}, categorical: [...], got {spec!r}")
    distribution, samples = _KINDS[kind](options)
    for value in samples:
        try:
            trial_job(job, {key: value}, job.name, job.output)
        except ConfigError as error:
            rule = str(error).splitlines()[0].removeprefix("trial: ").removeprefix(f"{key}: ")
            raise ConfigError(f"{value!r} is refused: {rule}") from None
    return distribution


def _numeric(kind: str) -> Callable[[Any], tuple[BaseDistribution, list[Any]]]:
    def build(options: Any) -> tuple[BaseDistribution, list[Any]]:
        allowed = ("low", "high", "log", "step")
        if not isinstance(options, dict) or not {"low", "high"} <= options.keys() or options.keys() - {*allowed}:
            raise ConfigError(f"{kind} takes low and high, and log or step if wanted, got {options!r}")
        numbers = {name: _number(kind, name, options[name]) for name in allowed if name != "log" and name in options}
        low, high, step, log = numbers["low"], numbers["high"], numbers.get("step"), options.get("log", False)
        if not isinstance(log, bool):
            raise ConfigError(f"log must be true or false, got {log!r}")
        if low >= high:
            raise ConfigError(f"low must be below high, got {low:g} and {high:g}")
        if log and low <= 0:
            raise ConfigError(f"log needs a low above 0, got {low:g}")
        if log and step is not None:
            raise ConfigError("log and step exclude each other; leave one out")
        if step is not None and step <= 0:
            raise ConfigError(f"step must be above 0, got {step:g}")
        if step is not None and not math.isclose((high - low) / step, round((high - low) / step), abs_tol=1e-9):
            raise ConfigError(f"high must be a whole number of steps above low, got {low:g}, {high:g}, step {step:g}")
        if kind == "int":
            return IntDistribution(int(low), int(high), log=log, step=int(step or 1)), [int(low), int(high)]
        return FloatDistribution(low, high, log=log, step=step), [low, high]

    return build


def _number(kind: str, name: str, value: Any) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)  # YAML reads 2e-4 as text
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or (kind == "int" and number != int(number)):
        raise ConfigError(f"{name} must be {'a whole' if kind == 'int' else 'a finite'} number, got {value!r}")
    return number


def _categorical(choices: Any) -> tuple[BaseDistribution, list[Any]]:
    if not isinstance(choices, list) or len(choices) < 2:
        raise ConfigError(
            f"categorical needs a list of two or more choices, got {choices!r}; a fixed value is the job's"
        )
    encoded = [json.dumps(choice) if isinstance(choice, (list, dict)) else choice for choice in choices]
    if len({repr(choice) for choice in encoded}) < len(encoded):
        raise ConfigError(f"each choice may stand once, got {choices!r}")
    return CategoricalDistribution(encoded), choices


_KINDS = {"float": _numeric("float"), "int": _numeric("int"), "categorical": _categorical}


def trial_job(job: SearchJob, values: Mapping[str, Any], name: str, output: str) -> TrainJob:
    """The training job of a trial.

    Args:
        values: job values by dotted key, as from `decoded`.
        name, output: of the trial's own run.

    Raises:
        ConfigError: the job refuses this combination.
    """
    merged = job.model_dump(mode="json", exclude={"search"})
    if "model.family" in values:
        merged = families.rebased(merged, values["model.family"])
    for key, value in values.items():
        set_value(merged, key, value)
    merged |= {"kind": "train", "name": name, "output": output}
    trial = validate_job(merged, "trial")
    assert isinstance(trial, TrainJob)
    return trial


def numbered_trial_job(job: SearchJob, number: int, values: Mapping[str, Any], folder: Path) -> TrainJob:
    """`trial_job` of trial `number` of a search whose folder is `folder`; its run folder is that of the job."""
    return trial_job(job, values, f"{job.name}-{number:04d}", str(folder / "trials"))


def infeasible(job: TrainJob) -> str | None:
    """Why the network of a trial cannot be built, or None if it can."""
    from lwddpm.models.build import count_parameters  # PyTorch takes seconds, and `search show` builds no network

    try:
        count_parameters(job.model, job.data.image_size)
    except (ValueError, RuntimeError) as error:
        return " ".join(str(error).split())
    return None
