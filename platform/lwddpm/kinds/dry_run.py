"""`--dry-run`: the resolved job and what it will need. Starts nothing, writes nothing and fetches nothing."""

from collections import Counter
from pathlib import Path
from typing import Any

from lwddpm.audit.thresholds import check_groups, fewest_groups
from lwddpm.audit.utility.arms import arms
from lwddpm.conditions import Vocabulary
from lwddpm.config import (
    AnyJob,
    AuditJob,
    CompareJob,
    DataConfig,
    SampleJob,
    SearchJob,
    TradeoffJob,
    TrainingJob,
    TrainJob,
)
from lwddpm.data.prepare import open_source
from lwddpm.data.pseudonyms import pseudonyms_of
from lwddpm.data.store import open_dataset, read_manifest
from lwddpm.kinds.audit.parts import parts_of
from lwddpm.kinds.compare.plan import make_plan
from lwddpm.kinds.jobs import check_job
from lwddpm.kinds.prepare import class_counts
from lwddpm.kinds.tradeoff.plan import make_plan as make_tradeoff
from lwddpm.offline import offline
from lwddpm.search.budget import Budget
from lwddpm.search.space import load_space, num_trials
from lwddpm.tracking.rundir import compare_folder, run_folder, search_folder
from lwddpm.tracking.store import named_hosts
from lwddpm.training.estimate import estimate_resources
from lwddpm.training.schedule import Schedule
from lwddpm.training.stored_model import read_saved_model
from lwddpm.training.stored_presets import read_presets
from lwddpm.training.vocabulary import available, vocabulary_of


def plan(job: AnyJob, address: str | None = None) -> dict[str, Any]:
    """Validate wholly and describe.

    Returns:
        `config` (resolved), `digest`; `classes`: slices of each, or files where nothing is prepared yet;
        `conditions`: what slices can be asked for by, with the values;
        `not_taken`: what of the source is none of them (pages of files are counted when they are read, not before);
        for training jobs also `parameters`, `memory_mib_per_worker`, `tflop_per_step_and_worker`, `train_slices`,
        `steps_per_epoch`, `steps`, `run_dir`;
        for a trade-off `tradeoff`: network calls of each way to draw, by label, and of all; None where the model is
        not in a folder of this machine, for nothing is fetched;
        for an audit also `audit`: `slices` that are drawn (None: 10 for each training slice), `held_out_groups` (None:
        nothing is prepared yet) and how many are `needed`; `parts` (None: not known, for the model is not in a folder
        of this machine) and `utility`: slices (None: not known yet) and how often a classifier learns;
        for a comparison also `trainings`: parameters and steps of each, by label;
        for a search also `search`: `space`, `combinations` (None: any values of a range), `trials`, `rungs` (steps at
        which one is measured), `steps_at_most`.

    Raises:
        ConfigError, DataError: as the real run would.
    """
    with offline(job.offline, named_hosts(job.tracking)):
        check_job(job, address, download=False)
    described: dict[str, Any] = {"config": job.settings(), "digest": job.digest()}
    if not isinstance(job, SampleJob):
        described["classes"], described["not_taken"] = _contents(job.data)
        described["conditions"] = _conditions(job.data, described["classes"])
    if isinstance(job, TradeoffJob):
        described["tradeoff"] = _ways(job)
    if isinstance(job, AuditJob):
        described["audit"] = _audit(job)
    if isinstance(job, TrainingJob):
        needs = estimate_resources(job, _vocabulary(job))
        num_train, known = _train_slices(job.data)
        schedule = Schedule.of(job.training, num_train, job.batches_per_step)
        described |= {
            "parameters": needs.parameters,
            "memory_mib_per_worker": needs.memory_mib,
            "tflop_per_step_and_worker": needs.step_tflop,
            "train_slices": num_train,
            "train_slices_known": known,
            "steps_per_epoch": schedule.steps_per_epoch,
            "steps": schedule.num_steps,
            "run_dir": str(_folder(job)),
        }
        if isinstance(job, SearchJob):
            rungs, space = Budget.of(job, num_train).rungs, load_space(job.search.space, job)
            trials = num_trials(job, space)
            described["search"] = {
                "space": space.describe(),
                "combinations": space.num_combinations,
                "trials": trials,
                "rungs": rungs,
                "steps_at_most": min(trials, space.num_combinations or trials) * rungs[-1],
            }
        elif isinstance(job, CompareJob):
            described["trainings"] = {
                planned.label: {
                    "parameters": estimate_resources(planned.job, _vocabulary(planned.job)).parameters,
                    "steps": Schedule.of(planned.job.training, num_train, planned.job.batches_per_step).num_steps,
                }
                for planned in make_plan(job, num_train).trainings.values()
            }
    return described


def _ways(job: TradeoffJob) -> dict[str, Any] | None:
    model_dir = Path(job.model_uri)
    if not (model_dir / "config.json").is_file():
        return None
    n = job.tradeoff.num_samples
    planned = make_tradeoff(job.tradeoff, model_dir, read_presets(model_dir), n)
    return {
        "ways": {way.label: way.network_calls for way in planned.ways},
        "left_out": planned.left_out,
        "network_calls": planned.calls(n, len(job.tradeoff.sampling_seeds)),
    }


def _audit(job: AuditJob) -> dict[str, Any]:
    manifest, slices, groups = read_manifest(job.data.dataset_path), job.audit.num_samples, None
    parts: tuple[str, ...] | None = job.audit.parts
    if (Path(job.model_uri) / "config.json").is_file():
        parts, _ = parts_of(job, read_saved_model(Path(job.model_uri)), job.model_uri)
    if manifest is not None:
        slices = job.audit.num_drawn(manifest.splits["train"].num)
        of_splits = [manifest.splits[split].groups for split in ("validation", "test")]
        known = [number for number in of_splits if number is not None]
        if len(known) == len(of_splits):  # datasets of older versions do not say
            groups = sum(known)
            if parts is None or "memorisation" in parts:
                check_groups(groups, job.audit.false_alarm_rate, job.data.dataset_path)
    planned = {"slices": slices, "held_out_groups": groups, "needed": fewest_groups(job.audit.false_alarm_rate)}
    found: dict[str, Any] = planned | {"parts": None if parts is None else list(parts)}
    if parts is not None and "utility" in parts:
        num = None if manifest is None else job.utility.num_drawn(manifest.splits["train"].num)
        found["utility"] = {"slices": num, "fits": len(arms(job.utility))}
    return found


def _folder(job: TrainingJob) -> Path:
    match job:
        case SearchJob():
            return search_folder(job)
        case CompareJob():
            return compare_folder(job)
        case _:
            assert isinstance(job, TrainJob)
            return run_folder(job)


def _contents(data: DataConfig) -> tuple[dict[str, int], dict[str, Any]]:
    """Classes, and what is not taken: of the dataset, or before there is one, of the source (`data.pages` apart)."""
    manifest = read_manifest(data.dataset_path)
    if manifest is not None:
        return class_counts(manifest), manifest.not_taken.model_dump(mode="json")
    source = open_source(data)
    classes = dict(sorted(Counter(source.label(name) for name in source.scan()[0]).items()))
    return classes, pseudonyms_of(data).not_taken(source).model_dump(mode="json")


def _conditions(data: DataConfig, classes: dict[str, int]) -> dict[str, str]:
    """What slices can be asked for by (`model.conditions`): of the dataset, or before there is one, of the source."""
    if read_manifest(data.dataset_path) is not None:
        return available(open_dataset(data.dataset_path))
    label = {"label": ", ".join(classes)} if len(classes) > 1 else {}
    unknown = dict.fromkeys(
        ("plane", "sequence", "position_mm"), "where it differs: known once the dataset is prepared"
    )
    return label | (unknown if data.reads_volumes else {})


def _vocabulary(job: TrainingJob) -> Vocabulary | None:
    """Of a job whose dataset is prepared: before that nobody knows how many values a condition has."""
    if not job.model.conditions or read_manifest(job.data.dataset_path) is None:
        return None
    dataset = open_dataset(job.data.dataset_path)
    return vocabulary_of(dataset, job.model.conditions, job.training.condition_dropout or 0)


def _train_slices(data: DataConfig) -> tuple[int, bool]:
    """Size of the training split: exact once prepared, before that expected from the number of files."""
    manifest = read_manifest(data.dataset_path)
    if manifest is not None:
        return manifest.splits["train"].num, True
    return round(len(open_source(data).scan()[0]) * data.splits[0]), False
