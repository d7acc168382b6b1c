"""The Optuna study: the only record of a search. Opened, read, ranked; written trial by trial."""

import functools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

import optuna
import psutil
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from lwddpm.addresses import public
from lwddpm.errors import ConfigError
from lwddpm.search.space import decoded

DEFINITION = "lwddpm.definition"
STEP, METRICS, SECONDS = "lwddpm.step", "lwddpm.metrics", "lwddpm.seconds"
CURVE, REASON, RUN_ID, INFEASIBLE = "lwddpm.curve", "lwddpm.reason", "lwddpm.run_id", "lwddpm.infeasible"

_NETWORK_FILE_SYSTEMS = (
    "nfs", "cifs", "smb", "9p", "lustre", "beegfs", "gluster", "ceph", "gpfs", "afs", "vboxsf", "fuse.sshfs",
    "fuse.gluster", "fuse.s3", "fuse.gcsfuse", "virtiofs",
)  # fmt: skip
_EXPLAINED_TRIALS = 4  # fewer say nothing about what matters
# That TPE draws at random before it models anything: half of Optuna's default, since searches here have tens of trials
_STARTUP_TRIALS = 5

optuna.logging.set_verbosity(optuna.logging.ERROR)

State = Literal["complete", "pruned", "failed", "infeasible", "running"]


@dataclass(frozen=True)
class Definition:
    """What makes trials of one study comparable, and so must not change between its sessions."""

    space: dict[str, Any]
    sampler: str
    seed: int
    objectives: tuple[str, ...]
    scheduler: str
    prune_on: str
    max_steps: int
    grace_steps: int
    reduction_factor: int
    job: str
    proxy: str


@dataclass(frozen=True)
class TrialRecord:
    """A trial as people ask for it.

    Attributes:
        step: the last budget that it reached, in optimizer steps; 0 before the first.
        values: of the objectives, at the full budget only.
        last: the last value of what early stopping compares.
        params: job values by dotted key.
        seconds: of training and measuring.
    """

    number: int
    state: State
    step: int
    values: tuple[float, ...] | None
    last: float | None
    params: dict[str, Any]
    reason: str
    run_id: str
    seconds: float


def maximised(objective: str) -> bool:
    """Whether more is better; of everything but SSIM, less is."""
    return objective.startswith("eval/ssim")


def storage_url(given: str | None) -> str:
    """The given `search.storage`, else SQLite in the working folder; absolute."""
    url = given or "sqlite:///optuna.db"
    prefix = "sqlite:///"
    return f"{prefix}{Path(url.removeprefix(prefix)).absolute()}" if url.startswith(prefix) else url


def check_storage(url: str) -> None:
    """Refuse a storage that cannot be used, or that would break.

    Raises:
        ConfigError: unknown scheme, unwritable folder, or SQLite on a network mount.
    """
    scheme = urlparse(url).scheme.partition("+")[0]
    if scheme not in ("sqlite", "postgresql", "mysql"):
        raise ConfigError(
            f"search.storage: must begin with sqlite:///, postgresql:// or mysql://, got {public(url)!r}; "
            "leave it out for SQLite in the working folder"
        )
    if scheme != "sqlite":
        return
    folder = Path(url.removeprefix("sqlite:///")).absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"search.storage: the folder of an SQLite storage must exist, got {folder}; create it")
    found = file_system(folder)
    if found.startswith(_NETWORK_FILE_SYSTEMS):
        raise ConfigError(
            f"search.storage: SQLite on a network mount ({found} at {folder}) corrupts under concurrent writes; "
            "name a local disk, or PostgreSQL as postgresql://user@host/database"
        )


def file_system(folder: Path) -> str:
    """Type of the file system that holds a folder."""
    mounts = {Path(found.mountpoint): found.fstype for found in psutil.disk_partitions(all=True)}
    resolved = folder.resolve()
    holding = next((path for path in (resolved, *resolved.parents) if path in mounts), None)
    return mounts[holding] if holding else ""


def open_study(url: str, name: str, definition: Definition) -> optuna.Study:
    """Create the study, or load it to continue.

    Raises:
        ConfigError: there is one of this name that was made otherwise; names every difference.
    """
    maximise, minimise = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    directions = [maximise if maximised(objective) else minimise for objective in definition.objectives]
    known = study_names(url)
    if name in known:
        study = optuna.load_study(study_name=name, storage=_storage(url))
        _refuse_changes(study, name, definition)
        return study
    study = optuna.create_study(study_name=name, storage=_storage(url), directions=directions)
    study.set_user_attr(DEFINITION, asdict(definition))
    study.set_metric_names(list(definition.objectives))
    _note(study, definition)
    return study


def _note(study: optuna.Study, definition: Definition) -> None:
    """What optuna-dashboard shows as the study's note, where it is installed."""
    try:
        from optuna_dashboard import save_note
    except ImportError:
        return
    space = "\n".join(f"| `{key}` | {_brief(found)} |" for key, found in definition.space.items())
    save_note(
        study,
        f"{definition.sampler} proposes, {definition.scheduler} ends weak trials by {definition.prune_on}; objectives: "
        f"{', '.join(definition.objectives)}. Full budget: {definition.max_steps} optimizer steps; trials that ended "
        "earlier are PRUNED, and their values cannot be compared with those of the others. The user attribute "
        f"`{RUN_ID}` is a trial's run in MLflow.\n\n| parameter | range |\n|---|---|\n{space}\n",
    )


def _refuse_changes(study: optuna.Study, name: str, definition: Definition) -> None:
    before = study.user_attrs.get(DEFINITION)
    if before is None:
        raise ConfigError(f"search.storage: its study {name} was not made by lwddpm; give the search another name")
    now = asdict(definition) | {"objectives": list(definition.objectives)}
    changes = []
    for field in fields(Definition):
        if field.name == "space":
            keys = sorted(before["space"].keys() | now["space"].keys())
            changes += [
                f"search.space: {key} was {_brief(before['space'].get(key))}, is {_brief(now['space'].get(key))}"
                for key in keys
                if before["space"].get(key) != now["space"].get(key)
            ]
        elif before[field.name] != now[field.name]:
            label = {"job": "the job's data, model, diffusion or training", "seed": "seed"}.get(
                field.name, f"search.{field.name}"
            )
            changes.append(f"{label} was {before[field.name]}, is {now[field.name]}")
    if changes:
        remedy = "a study compares like with like: undo the change, give the search another name, or use --fresh"
        raise ConfigError("\n".join(f"study {name}: {change}; {remedy}" for change in changes))


def _brief(distribution: dict[str, Any] | None) -> str:
    if distribution is None:
        return "absent"
    options = ", ".join(f"{key} {value}" for key, value in distribution["attributes"].items() if value is not None)
    return f"{distribution['name'].removesuffix('Distribution').lower()} ({options})"


def find_study(url: str, name: str) -> optuna.Study:
    """Load a study to read it; creates nothing.

    Raises:
        ConfigError: no such study; lists those that there are.
    """
    known = study_names(url)
    if name not in known:
        there = (
            f"known: {', '.join(sorted(known))}" if known else "it has none: run a search first, lwddpm run search_demo"
        )
        raise ConfigError(f"{name}: no such study in {public(url)}; {there}")
    return optuna.load_study(study_name=name, storage=_storage(url))


def delete_study(url: str, name: str) -> None:
    """Forget a study, if there is one."""
    if name in study_names(url):
        optuna.delete_study(study_name=name, storage=_storage(url))


def study_names(url: str) -> list[str]:
    """Studies in a storage; none where an SQLite file does not exist, which stays so."""
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return []
    return optuna.get_all_study_names(_storage(url))


def _storage(url: str) -> optuna.storages.RDBStorage:
    # a reader such as optuna-dashboard may hold SQLite's lock for a moment
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except ImportError:
        name = urlparse(url).scheme
        remedy = "pip install 'lwddpm[postgresql]'" if name == "postgresql" else "install one that SQLAlchemy knows"
        raise ConfigError(f"search.storage: no driver for {name} is installed here; {remedy}") from None
    except Exception as error:  # SQLAlchemy's own
        raise ConfigError(f"search.storage: {public(url)} cannot be used: {str(error).splitlines()[0]}") from None


def sampler_for(name: str, seed: int, number: int, objectives: int) -> BaseSampler:
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
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=own, population_size=20)
    return optuna.samplers.TPESampler(
        seed=own, n_startup_trials=_STARTUP_TRIALS, multivariate=objectives == 1, constant_liar=True
    )


def suggest(trial: optuna.Trial, distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Parameters of a trial: those it has, and proposals for those it has not."""
    return {name: _suggest_one(trial, name, found) for name, found in distributions.items()}


def _suggest_one(trial: optuna.Trial, name: str, found: BaseDistribution) -> Any:
    match found:
        case FloatDistribution():
            return trial.suggest_float(name, found.low, found.high, log=found.log, step=found.step)
        case IntDistribution():
            return trial.suggest_int(name, found.low, found.high, log=found.log, step=found.step)
        case CategoricalDistribution():
            return trial.suggest_categorical(name, found.choices)
    raise TypeError(f"unknown distribution {found!r}")


def report(
    trial: optuna.Trial, step: int, value: float, measured: dict[str, float], seconds: float, *, single: bool
) -> None:
    """Write a rung down; the same one again changes nothing.

    Args:
        single: whether the study has one objective. With several Optuna keeps no curves, so the trial does itself.
    """
    known = curve(trial.study._storage.get_trial(trial._trial_id))
    if step in known:
        return
    if single:
        trial.report(value, step)
    else:
        trial.set_user_attr(CURVE, {str(at): found for at, found in (known | {step: value}).items()})
    trial.set_user_attr(STEP, step)
    trial.set_user_attr(METRICS, measured)
    trial.set_user_attr(SECONDS, seconds)


def curve(trial: FrozenTrial) -> dict[int, float]:
    """Budget -> value of what early stopping compares."""
    kept = {int(step): value for step, value in trial.user_attrs.get(CURVE, {}).items()}
    return kept or dict(trial.intermediate_values)


def records(study: optuna.Study) -> list[TrialRecord]:
    """All trials by number."""
    return [_record(trial) for trial in study.get_trials(deepcopy=False)]


def _record(trial: FrozenTrial) -> TrialRecord:
    attrs = trial.user_attrs
    states: dict[TrialState, State] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "infeasible" if attrs.get(INFEASIBLE) else "pruned",
        TrialState.FAIL: "failed",
    }
    known = curve(trial)
    return TrialRecord(
        number=trial.number,
        state=states.get(trial.state, "running"),
        step=max(known, default=0),
        values=tuple(trial.values) if trial.state == TrialState.COMPLETE else None,
        last=known[max(known)] if known else None,
        params=decoded(trial.params),
        reason=attrs.get(REASON, ""),
        run_id=attrs.get(RUN_ID, ""),
        seconds=attrs.get(SECONDS, 0.0),
    )


def ranking(study: optuna.Study) -> list[TrialRecord]:
    """Trials at the full budget, which alone can be compared, by the first objective, best first."""
    sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1
    complete = [found for found in records(study) if found.values is not None and math.isfinite(found.values[0])]
    return sorted(complete, key=lambda found: (sign * found.values[0], found.number) if found.values else (0.0, 0))


def pareto_front(study: optuna.Study) -> list[TrialRecord]:
    """Trials that no other beats in every objective; with one objective the best."""
    if len(study.directions) == 1:
        return ranking(study)[:1]
    return sorted((_record(trial) for trial in study.best_trials), key=lambda found: found.number)


def importance(study: optuna.Study) -> dict[str, dict[str, float]]:
    """For each objective, each parameter's share of the variance that they explain; {} where nothing can be said."""
    found: dict[str, dict[str, float]] = {}
    if len(ranking(study)) < _EXPLAINED_TRIALS:
        return found
    for index, name in enumerate(study.metric_names or ["objective"]):
        try:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            target = functools.partial(_objective_value, index)
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
            found[name] = dict(shares)
        except (ValueError, RuntimeError):  # all of one value
            continue
    return {name: shares for name, shares in found.items() if shares and all(map(math.isfinite, shares.values()))}


def _objective_value(index: int, trial: FrozenTrial) -> float:
    return float(trial.values[index])


def describe(study: optuna.Study) -> dict[str, Any]:
    """Everything that `lwddpm search show` says, as JSON values."""
    found = records(study)
    ranked = ranking(study)
    return {
        "name": study.study_name,
        "objectives": list(study.metric_names or []),
        "definition": study.user_attrs.get(DEFINITION, {}),
        "counts": dict(Counter(trial.state for trial in found)),
        "steps": sum(trial.step for trial in found),
        "seconds": sum(trial.seconds for trial in found),
        "best": asdict(ranked[0]) if ranked else None,
        "ranking": [trial.number for trial in ranked],
        "pareto_front": [trial.number for trial in pareto_front(study)],
        "importance": importance(study),
        "trials": [asdict(trial) for trial in found],
    }


def table(study: optuna.Study) -> str:
    """Markdown: all trials, the full budgets first, best first."""
    names, keys = list(study.metric_names or []), sorted({key for found in records(study) for key in found.params})
    head = ["trial", "state", "step", *names, "last", *keys, "reason"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    ranked = ranking(study)
    numbers = {found.number for found in ranked}
    rest = [found for found in records(study) if found.number not in numbers]
    for found in [*ranked, *sorted(rest, key=lambda found: -found.step)]:
        values = [f"{value:.4g}" for value in found.values] if found.values else ["-"] * len(names)
        last = "-" if found.last is None else f"{found.last:.4g}"
        params = [_text(found.params.get(key, "-")) for key in keys]
        cells = [str(found.number), found.state, str(found.step), *values, last, *params, found.reason]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
