"""What a study was made with, kept with it: trials can be compared only while none of it changes."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import optuna
from optuna.study import StudyDirection

from lwddpm.config.search import maximised
from lwddpm.errors import ConfigError
from lwddpm.search.ownership import MADE_BY
from lwddpm.search.storage import open_storage, study_names
from lwddpm.search.trials import RUN_ID

DEFINITION = "lwddpm.definition"  # the study's user attribute
NUM_SLICES = "lwddpm.n"  # the study's user attribute: objective -> how many slices it is measured on
FORMAT = 1  # of that attribute; studies made before it had a number have the fields of format 1


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
    constraints: dict[str, float] = field(default_factory=dict)


def open_study(
    url: str, name: str, definition: Definition, *, made_by: str = "", earlier_job: str = ""
) -> optuna.Study:
    """Create the study, or load it to continue.

    Args:
        made_by: id of the search's folder, kept with a study that is created.
        earlier_job: what version 0.1.0 had as `job` of the same definition; such a study is continued.

    Raises:
        ConfigError: there is one of this name that was made otherwise; names every difference.
    """
    directions = [
        StudyDirection.MAXIMIZE if maximised(objective) else StudyDirection.MINIMIZE
        for objective in definition.objectives
    ]
    if name in study_names(url):
        study = optuna.load_study(study_name=name, storage=open_storage(url))
        _refuse_changes(study, definition, earlier_job)
        return study
    study = optuna.create_study(study_name=name, storage=open_storage(url), directions=directions)
    study.set_user_attr(MADE_BY, made_by)
    study.set_user_attr(DEFINITION, {"format": FORMAT} | asdict(definition))
    study.set_metric_names(list(definition.objectives))
    _write_note(study, definition)
    return study


def _write_note(study: optuna.Study, definition: Definition) -> None:
    """What optuna-dashboard shows as the study's note, where it is installed."""
    try:
        from optuna_dashboard import save_note
    except ImportError:
        return
    space = "\n".join(f"| `{key}` | {_brief(distribution)} |" for key, distribution in definition.space.items())
    save_note(
        study,
        f"{definition.sampler} proposes, {definition.scheduler} ends weak trials by {definition.prune_on}; objectives: "
        f"{', '.join(definition.objectives)}. Full budget: {definition.max_steps} optimizer steps; trials that ended "
        "earlier are PRUNED, and their values cannot be compared with those of the others. The user attribute "
        f"`{RUN_ID}` is a trial's run in MLflow.\n\n| parameter | range |\n|---|---|\n{space}\n",
    )


def _refuse_changes(study: optuna.Study, definition: Definition, earlier_job: str) -> None:
    name, before = study.study_name, study.user_attrs.get(DEFINITION)
    if before is None:
        raise ConfigError(f"search.storage: its study {name} was not made by lwddpm; give the search another name")
    before = {"constraints": {}} | before  # of studies that were made before there were any
    if before.get("format", 1) > FORMAT:
        raise ConfigError(
            f"study {name}: its definition must have format {FORMAT} or lower, got {before['format']}, of a newer "
            "lwddpm; continue it with that version, give the search another name, or use --fresh"
        )
    if missing := [each.name for each in fields(Definition) if each.name not in before]:
        raise ConfigError(
            f"study {name}: was made by a version of lwddpm that did not keep {', '.join(missing)}, so whether its "
            "trials can be compared with new ones is not known; give the search another name, or use --fresh"
        )
    of_earlier_version = before["job"] == earlier_job
    if of_earlier_version:
        before = before | {"job": definition.job}
    if changes := _changes(before, asdict(definition) | {"objectives": list(definition.objectives)}):
        remedy = "a study compares like with like: undo the change, give the search another name, or use --fresh"
        raise ConfigError("\n".join(f"study {name}: {change}; {remedy}" for change in changes))
    if of_earlier_version:
        study.set_user_attr(DEFINITION, before)


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One sentence for each difference between two definitions."""
    changes = []
    for name in (each.name for each in fields(Definition)):
        if name == "space":
            keys = sorted(before["space"].keys() | now["space"].keys())
            changes += [
                f"search.space: {key} was {_brief(before['space'].get(key))}, is {_brief(now['space'].get(key))}"
                for key in keys
                if before["space"].get(key) != now["space"].get(key)
            ]
        elif before[name] != now[name]:
            label = {"job": "the job's data, model, diffusion or training", "seed": "seed"}.get(name, f"search.{name}")
            changes.append(f"{label} was {before[name]}, is {now[name]}")
    return changes


def _brief(distribution: dict[str, Any] | None) -> str:
    if distribution is None:
        return "absent"
    options = ", ".join(f"{key} {value}" for key, value in distribution["attributes"].items() if value is not None)
    return f"{distribution['name'].removesuffix('Distribution').lower()} ({options})"
