"""Records of image quality: measures a job with several training seeds, judges it, and keeps what came out.

    python benchmarks/records.py measure B jobs/best_small.yaml --set data.source=PATH --change "what is new"
    python benchmarks/records.py tables           # writes the tables of docs/records.md

Results are kept in benchmarks/records.json; docs/records.md has the rules. Each training is a run folder: an
interrupted measurement continues there, and finished trainings are read. How long a training takes is measured at the
end, in turns with the track's base, as a multiple of the base's time: wall and CPU seconds alone vary several times
over on a machine that is shared.
"""

import argparse
import dataclasses
import datetime
import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel
from scipy.stats import t, ttest_ind
from turns import TURN_S, Step, median_steps

from lwddpm.config import TrainJob
from lwddpm.data.store import open_dataset
from lwddpm.evaluation.copying import copying, nearest_median
from lwddpm.jobfile import load_job
from lwddpm.training.adversarial import AdversarialStep
from lwddpm.training.allocator import tune_allocator
from lwddpm.training.denoising import DenoisingStep
from lwddpm.training.schedule import Schedule

HERE = Path(__file__).resolve().parent
KEPT, PAGE = HERE / "records.json", HERE.parent / "docs" / "records.md"
BEGIN, END = "<!-- tables: benchmarks/records.py -->", "<!-- end of tables -->"
SIGNIFICANT = 0.01
FEWEST_SEEDS = 3


class Track(NamedTuple):
    """What is compared.

    Attributes:
        base: the job whose time a record may take, and its overrides; its data, n and reference are those of the track.
        threshold: records are times in which every seed's fd_lite0 comes to no more than this; None: records are
            fd_lite0.
        samples, reference: slices drawn, and training slices that they are compared with.
    """

    title: str
    base: str
    overrides: tuple[str, ...] = ()
    threshold: float | None = None
    samples: int = 300
    reference: int = 600


LARGER = ("data.image_size=64", "model.dim_mults=[1,3,6,8]", "training.batch_size=16", "training.max_steps=3400")
PAPERS = (  # the paper's network and settings near its own, as the demo once had them
    *("model.dim=16", "model.dim_mults=[1,4,6]", "model.patch=1", "model.head_skip=false"),
    *("diffusion.intensity_gamma=1", "training.max_steps=700", "training.batch_size=32", "training.warmup_steps=50"),
    *("training.optimizer=adam", "training.lr=2.0e-3", "training.timestep_sampling=uniform"),
    *("training.log_sigma_mean=null", "training.log_sigma_std=null"),
    *("training.ema_decay=0.995", "training.snapshot_epochs=[5,10,15]"),
    *("training.guide_epoch=null", "evaluation.sampler=sde-dpmsolver++", "evaluation.num_inference_steps=20"),
    "evaluation.guidance=1",
)
TRACKS = {
    "A": Track("A. Simulated slices, 32x32, in the time of a demo", "jobs/demo.yaml", PAPERS, None, 256, 512),
    "B": Track("B. Real slices, 32x32, in the time of `jobs/kaggle_small.yaml`", "jobs/kaggle_small.yaml"),
    "C": Track("C. Real slices, 64x64, in the time of its larger form", "jobs/kaggle_small.yaml", LARGER),
    "D": Track("D. Time until 90 on track B", "jobs/kaggle_small.yaml", threshold=90),
}
TIME_ALLOWED = 1.1  # of the base's
SHORTER = 0.9  # of the record's time: turns measure it to a few per cent
TURNS = 5
TOGETHER = 20


class Entry(BaseModel):
    """One measured job. Lists have one value for each training seed."""

    track: str
    date: str
    change: str
    job: str
    digest: str
    dataset: str  # version: the hash of its content
    extractor: str  # hash of the weights
    seeds: list[int]
    fd_lite0: list[float]
    recall_lite0: list[float]
    nearest: list[float]  # median RMS distance to the nearest training slice, in grey levels
    time: float  # of the training, as a multiple of the base's
    step_ms: float  # of the training, on one thread
    floor: float
    nearest_floor: float
    copying: list[str] = []  # of seeds whose slices are copies of training slices: what was found
    calls: int
    guidance: float
    machine: str
    faults: list[str] = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    measure = verbs.add_parser("measure", help="train with several seeds, judge, and keep the result")
    measure.add_argument("track", choices=TRACKS)
    measure.add_argument("job", help="job file; `base`: the track's own, which is the first of its entries")
    measure.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    measure.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102], help="not those it was chosen with")
    measure.add_argument("--change", required=True, help="one line: what is new")
    measure.add_argument("--output", default="runs/records", help="folder for runs, dataset and tracking store")
    measure.set_defaults(verb=_measure)
    verbs.add_parser("tables", help="write docs/records.md anew").set_defaults(verb=lambda _: write_tables())
    given = parser.parse_args()
    given.verb(given)


def _measure(given: argparse.Namespace) -> None:
    track, output = TRACKS[given.track], Path(given.output).absolute()
    if given.job == "base":
        given.job, given.overrides = track.base, [*track.overrides, *given.overrides]
    fixed = [
        *(f"{key}={value}" for key, value in (("output", output), ("tracking.uri", f"sqlite:///{output}/mlflow.db"))),
        f"evaluation.num_samples={track.samples}",
        f"evaluation.num_reference={track.reference}",
        "registry=null",
    ]
    output.mkdir(parents=True, exist_ok=True)
    results = []
    for seed in given.seeds:
        seeds = [f"seed={seed}", f"evaluation.seed={seed}"]
        results.append(_run(given.job, [*given.overrides, *fixed, *seeds]))
    entry = _entry(given, results)
    kept = read()
    entry.faults = faults_of(entry, kept)
    KEPT.write_text(json.dumps([known.model_dump() for known in [*kept, entry]], indent=1) + "\n")
    write_tables()
    print("no record: " + "; ".join(entry.faults) if entry.faults else f"a record of track {given.track}")


def _run(job: str, overrides: list[str]) -> dict[str, Any]:
    """The result of a training."""
    command = [sys.executable, "-m", "lwddpm", "run", job, "--json"]
    command += [word for override in overrides for word in ("--set", override)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if process.returncode:
        raise SystemExit(f"the job ended with exit code {process.returncode}: {' '.join(command)}")
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def relative_time(track: Track, job: str, overrides: list[str], dataset: str) -> tuple[float, float]:
    """Time of a job's training as a multiple of the track's base's, and milliseconds of one of its steps.

    The steps of both are timed in turns, each in a process of its own on one thread. Those of a training on crops
    differ: of it the mean of a short one's TOGETHER steps. What a training does beside its steps (checkpoints, which
    are written beside them, and snapshots) is left out.
    """
    source = [override for override in overrides if override.startswith("data.source=")]
    base, own = _training(track.base, [*track.overrides, *source]), _training(job, overrides)
    makers = {name: functools.partial(training_step, each, dataset) for name, each in (("base", base), ("own", own))}
    medians = median_steps(makers, TURNS, threads=1, turn_s=TURN_S)
    (base_s, (base_steps, base_taken)), (own_s, (own_steps, own_taken)) = medians["base"], medians["own"]
    base_s, own_s = base_s / base_taken, own_s / own_taken
    return own_s * own_steps / (base_s * base_steps), 1000 * own_s


def _training(job: str, overrides: list[str]) -> TrainJob:
    loaded = load_job(job, overrides)
    if not isinstance(loaded, TrainJob):
        raise SystemExit(f"a record is a training's: kind must be train, got {loaded.kind} in {job}")
    return loaded


def training_step(job: TrainJob, dataset_path: str) -> tuple[Step, tuple[int, int]]:
    """A function that takes the job's next training steps; how many the training has, and how many it takes at once."""
    tune_allocator()
    dataset = open_dataset(dataset_path)
    schedule = Schedule.of(job.training, dataset.num("train"), job.batches_per_step)
    step_type = DenoisingStep if job.diffusion is not None else AdversarialStep
    mixed = job.training.patches is not None
    timed = dataclasses.replace(schedule, num_steps=TOGETHER) if mixed else schedule
    step = step_type(job, dataset, timed, torch.device("cpu"))
    step.distribute()
    numbers = itertools.count()
    if mixed:
        return lambda: [step.take(number) for number in range(TOGETHER)], (schedule.num_steps, TOGETHER)
    return lambda: step.take(next(numbers)), (schedule.num_steps, 1)


def _entry(given: argparse.Namespace, results: list[dict[str, Any]]) -> Entry:
    folders = [Path(result["run_dir"]) for result in results]
    evaluations = [json.loads((folder / "evaluation.json").read_text()) for folder in folders]
    records = [{record["name"]: record for record in evaluation["records"]} for evaluation in evaluations]
    dataset = open_dataset(results[0]["dataset"]["path"])
    train = dataset.images("train")
    held_out = np.concatenate([dataset.images("validation"), dataset.images("test")])
    drawn = [np.load(folder / "samples.npy") for folder in folders]
    found = [copying(images, held_out, train).warning for images in drawn]
    times = relative_time(TRACKS[given.track], given.job, given.overrides, results[0]["dataset"]["path"])
    return Entry(
        track=given.track,
        date=datetime.date.today().isoformat(),
        change=given.change,
        job=" ".join([given.job, *(f"--set {value}" for value in given.overrides if not value.startswith("data."))]),
        digest=results[0]["digest"],
        dataset=results[0]["dataset"]["version"],
        extractor=records[0]["fd_lite0"]["weights_sha256"][:12],
        seeds=given.seeds,
        fd_lite0=[each["fd_lite0"]["value"] for each in records],
        recall_lite0=[each["recall_lite0"]["value"] for each in records],
        nearest=[nearest_median(images, train) for images in drawn],
        time=times[0],
        step_ms=times[1],
        floor=float(np.mean([each["fd_lite0"]["floor"] for each in records])),
        nearest_floor=nearest_median(held_out, train),
        copying=[warning for warning in found if warning is not None],
        calls=records[0]["fd_lite0"].get("network_calls") or evaluations[0]["config"]["num_inference_steps"],
        guidance=evaluations[0]["config"].get("guidance", 1.0),
        machine=_machine(),
    )


def faults_of(entry: Entry, kept: list[Entry]) -> list[str]:
    """Why an entry is no record, given all earlier ones; empty: it is one."""
    track = TRACKS[entry.track]
    earlier = [known for known in kept if known.track == entry.track and not known.faults]
    faults = []
    if len(entry.seeds) < FEWEST_SEEDS:
        faults.append(f"{FEWEST_SEEDS} training seeds or more, got {len(entry.seeds)}")
    if not np.isfinite([*entry.fd_lite0, *entry.recall_lite0, *entry.nearest, entry.time]).all():
        faults.append("every figure must be finite")
    faults += entry.copying[:1]
    if track.threshold is not None and max(entry.fd_lite0) > track.threshold:
        faults.append(f"fd_lite0 {max(entry.fd_lite0):.1f} of a seed is above {track.threshold:g}")
    if not earlier:
        return faults
    base, best = earlier[0], earlier[-1]
    if (entry.dataset, entry.extractor) != (base.dataset, base.extractor):
        faults.append("the dataset and the extractor must be those of the track")
    if np.mean(entry.recall_lite0) < np.mean(best.recall_lite0):
        faults.append(f"recall {np.mean(entry.recall_lite0):.2f} below the record's {np.mean(best.recall_lite0):.2f}")
    if track.threshold is not None:
        if not entry.time < SHORTER * best.time:
            faults.append(f"takes {entry.time:.2f} times the base's time; the record {best.time:.2f}")
        return faults
    if entry.time > TIME_ALLOWED:
        faults.append(f"takes {entry.time:.2f} times the base's time, more than {TIME_ALLOWED}")
    if len(entry.seeds) >= 2 and len(best.seeds) >= 2:
        p = ttest_ind(entry.fd_lite0, best.fd_lite0, equal_var=False, alternative="less").pvalue
        if not p < SIGNIFICANT:
            faults.append(f"not better than the record at p < {SIGNIFICANT} (p = {p:.2g})")
    return faults


def read() -> list[Entry]:
    """All entries, in the order in which they were measured."""
    return [Entry.model_validate(values) for values in json.loads(KEPT.read_text())] if KEPT.exists() else []


def write_tables() -> None:
    """Put the tables into docs/records.md, between the two marks."""
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    PAGE.write_text(head + BEGIN + "\n\n" + tables(read()) + "\n" + END + rest.split(END)[1])


def tables(entries: list[Entry]) -> str:
    """Markdown: for each track its records, then all that were none."""
    return "\n".join([*_records(entries), *_failed([entry for entry in entries if entry.faults])])


def _records(entries: list[Entry]) -> Iterator[str]:
    for name, track in TRACKS.items():
        records = [entry for entry in entries if entry.track == name and not entry.faults]
        yield f"### {track.title}\n"
        if not records:
            base = " ".join([track.base, *(f"--set {value}" for value in track.overrides)])
            yield f"Not measured yet; the first entry is that of its base, `{base}`.\n"
            continue
        yield f"n = {track.samples} against {track.reference} training slices, floor {records[0].floor:.1f}\n"
        yield "| date | what changed | fd_lite0 (95 %) | each seed | calls | recall | nearest | time | job |"
        yield "|---|---|---|---|---:|---:|---:|---:|---|"
        yield from map(_row, records)
        yield ""


def _row(entry: Entry) -> str:
    values = np.array(entry.fd_lite0)
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    each = ", ".join(f"{seed}: {value:.1f}" for seed, value in zip(entry.seeds, values, strict=True))
    guided = f", guided by {entry.guidance:g}" if entry.guidance != 1 else ""
    return (
        f"| {entry.date} | {entry.change} | **{values.mean():.1f}** ({values.mean() - half:.1f} to "
        f"{values.mean() + half:.1f}) | {each} | {entry.calls}{guided} | {np.mean(entry.recall_lite0):.2f} | "
        f"{np.median(entry.nearest):.1f} (held-out {entry.nearest_floor:.1f}) | {entry.time:.2f} "
        f"({entry.step_ms:.0f} ms a step, {entry.machine}) | `{entry.job}` ({entry.digest}) |"
    )


def _failed(entries: list[Entry]) -> Iterator[str]:
    yield "### Measured, and no record\n"
    if not entries:
        yield "None yet.\n"
        return
    yield "| track | date | what changed | fd_lite0 | time | why it is none | job |"
    yield "|---|---|---|---|---:|---|---|"
    for entry in entries:
        yield (
            f"| {entry.track} | {entry.date} | {entry.change} | {np.mean(entry.fd_lite0):.1f} "
            f"({', '.join(f'{value:.1f}' for value in entry.fd_lite0)}) | {entry.time:.2f} | "
            f"{'; '.join(entry.faults)} | `{entry.job}` |"
        )
    yield ""


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"1 thread of {models[0] if models else 'an unknown CPU'}"


if __name__ == "__main__":
    main()
