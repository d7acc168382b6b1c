"""What searching costs and what it saves, on the embedded dataset.

    python benchmarks/search_speed.py quality|overhead|bookkeeping [--json] [--seeds 0 1 2] [--trials N]

quality: TPE with ASHA against random search that ends no trial, over search_spaces/paper.yaml as jobs/search_demo.yaml
has it, with a narrower network and smaller batches, so that three seeds take minutes: after how many of random search's
optimizer steps does TPE with ASHA have a trial at the full budget at least as good as the best that random search found
at all? At most a third is wanted. TPE with ASHA may begin a quarter more trials than random search: in a third of its
steps there is room for about so many.

overhead: wall seconds of a one-worker trial beyond its training and validation, alone on this machine: from Optuna's
proposal to its state. Four trials, one at a time, none ended early. The first starts the process that all later ones
use, and is shown apart. At most 4 s is wanted of the others.

bookkeeping: seconds that the driver spends on a trial (proposal, MLflow run, results, state), with 500 trials of one
step, eight at a time: ninth decile of the 50 trials up to number 500 against those up to number 50. At most 1.5.
"""

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

TRIVIAL = (
    "data.phantom_count=60",
    "model.dim=8",
    "model.dim_mults=[1,2]",
    "training.max_steps=2",
    "training.batch_size=8",
    "training.warmup_steps=0",
    "training.log_every_steps=1",
    "training.validation_samples=6",
    "training.snapshot_epochs=[]",
    "search.objectives=[val/loss]",
    "search.max_steps=1",
    "search.grace_steps=1",
    "search.scheduler=none",
    "search.max_concurrent=8",
)


NARROW = ("model.dim=8", "training.batch_size=16")

# of the paper's keys those that leave the loss as it is, by which trials that only have to end are judged
SPACE = (
    "training.lr:\n  float: {low: 5.0e-5, high: 5.0e-3, log: true}\nmodel.se_reduction:\n  int: {low: 2, high: 64}\n"
)


def space_in(folder: Path) -> str:
    """Override that names a file with `SPACE`."""
    (folder / "space.yaml").write_text(SPACE)
    return f"search.space={folder}/space.yaml"


def settings_in(folder: Path, name: str, *further: str) -> list[str]:
    """Overrides that keep everything of a search in `folder` and train no winner."""
    places = [f"data.path={folder}/data", f"output={folder}/runs", f"tracking.uri=sqlite:///{folder}/mlflow.db"]
    return [*places, f"search.storage=sqlite:///{folder}/optuna.db", "search.finish=none", f"name={name}", *further]


def search(folder: Path, name: str, *further: str) -> dict[str, Any]:
    """Run jobs/search_demo.yaml with overrides in a process of its own; what `lwddpm search show --json` says."""
    command = [sys.executable, "-m", "lwddpm", "run", "search_demo", "--json"]
    flags = [part for setting in settings_in(folder, name, *further) for part in ("--set", setting)]
    output = subprocess.run([*command, *flags], capture_output=True, text=True)
    if output.returncode != 0:
        raise RuntimeError(output.stderr)
    described: dict[str, Any] = json.loads(output.stdout)["search"]
    return described


def quality(seeds: list[int], trials: int) -> dict[str, Any]:
    """For each seed: the best of either side, what it cost, and when TPE with ASHA was as good."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for seed in seeds:
            given, more = (*NARROW, f"seed={seed}"), round(1.25 * trials)
            plain = ("search.sampler=random", "search.scheduler=none", f"search.num_trials={trials}")
            random = search(Path(name), f"random-{seed}", *given, *plain)
            guided = search(Path(name), f"tpe-asha-{seed}", *given, f"search.num_trials={more}")
            target = random["best"]["values"][0]
            steps = _steps_until(Path(name), f"tpe-asha-{seed}", target)
            rows.append(
                {
                    "seed": seed,
                    "random_best": target,
                    "random_steps": random["steps"],
                    "tpe_asha_best": guided["best"]["values"][0],
                    "tpe_asha_steps": guided["steps"],
                    "steps_until_as_good": steps,
                    "share": steps / random["steps"] if steps else None,
                }
            )
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    shares = [row["share"] for row in rows]
    return {"rows": rows, "ratio": max(shares) if all(shares) else None}


def _steps_until(folder: Path, name: str, target: float) -> int | None:
    """Optimizer steps of all trials begun before the first one as good as `target` ended; an upper bound."""
    from lwddpm.search.storage import find_study
    from lwddpm.search.trials import curve

    trials = find_study(f"sqlite:///{folder}/optuna.db", name).get_trials(deepcopy=False)
    ends = [t.datetime_complete for t in trials if t.values and t.values[0] <= target and t.datetime_complete]
    if not ends:
        return None
    return sum(max(curve(t), default=0) for t in trials if t.datetime_start and t.datetime_start <= min(ends))


def overhead(trials: int) -> dict[str, float]:
    """Seconds beyond training: of the first trial, and median and worst of the others."""
    from lwddpm.search.storage import find_study
    from lwddpm.tracking.store import connect

    beyond = []
    with tempfile.TemporaryDirectory() as name:
        folder, batch = Path(name), 32
        alone = ("search.scheduler=none", "search.max_concurrent=1", f"search.num_trials={trials}")
        log = ("training.log_every_steps=30", "training.snapshot_epochs=[]")
        judged = (space_in(folder), "search.objectives=[val/loss]", f"training.batch_size={batch}")
        searched = search(folder, "overhead", *alone, *log, *judged)
        client = connect(f"sqlite:///{folder}/mlflow.db")
        for trial in find_study(f"sqlite:///{folder}/optuna.db", "overhead").get_trials():
            run = searched["trials"][trial.number]["run_id"]
            rates = [metric.value for metric in client.get_metric_history(run, "train/images_per_s")]
            training = sum(30 * batch / rate for rate in rates)
            assert trial.duration is not None
            beyond.append(trial.duration.total_seconds() - training)
    first, *later = beyond
    return {"first, s": first, "later median, s": statistics.median(later), "later worst, s": max(later)}


def bookkeeping(trials: int) -> dict[str, float]:
    """Ninth deciles of the driver's seconds for each trial, around trial 50 and around the last."""
    import ray

    from lwddpm.jobfile import load_job
    from lwddpm.kinds.jobs import run_job

    with tempfile.TemporaryDirectory() as name, _timed() as seconds:
        ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        given = [*TRIVIAL, space_in(Path(name)), f"search.num_trials={trials}"]
        job = load_job("search_demo", settings_in(Path(name), "trivial", *given))
        result = run_job(job)
        ray.shutdown()
    assert result["search"]["counts"] == {"complete": trials}, result["search"]["counts"]
    early, late = (np.quantile([seconds[n] for n in range(end - 50, end)], 0.9) for end in (50, trials))
    return {"trial 50, s": float(early), f"trial {trials}, s": float(late), "ratio": float(late / early)}


@contextmanager
def _timed() -> Iterator[dict[int, float]]:
    """Seconds by trial number that the driver's two threads compute for it while the block runs, summed at its end."""
    from lwddpm.cluster.searcher import StudySearcher
    from lwddpm.kinds.search.books import Books

    spent: list[tuple[int, float]] = []  # by either thread
    originals = {}

    def measure(owner: type, method: str, number_of: Any) -> None:
        original = originals[owner, method] = getattr(owner, method)

        def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = original(self, *args, **kwargs)
            number = number_of(args, result)
            if number is not None:
                spent.append((number, time.perf_counter() - start))
            return result

        setattr(owner, method, timed)

    measure(StudySearcher, "suggest", lambda args, result: result["number"] if isinstance(result, dict) else None)
    measure(StudySearcher, "_end", lambda args, result: args[0].number)
    for method in ("begin", "metrics", "rung", "end"):
        measure(Books, method, lambda args, result: args[0])
    seconds: dict[int, float] = collections.defaultdict(float)
    try:
        yield seconds
    finally:
        for (owner, method), original in originals.items():
            setattr(owner, method, original)
        for number, duration in spent:
            seconds[number] += duration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("quality", "overhead", "bookkeeping"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, help="default: 24 for quality, 4 for overhead, 500 for bookkeeping")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if arguments.what == "quality":
        result = quality(arguments.seeds, arguments.trials or 24)
    elif arguments.what == "overhead":
        result = overhead(arguments.trials or 4)
    else:
        result = bookkeeping(arguments.trials or 500)
    if arguments.json:
        print(json.dumps(result))
    elif arguments.what == "quality":
        names = list(result["rows"][0])
        print(f"| {' | '.join(names)} |\n|{'---:|' * len(names)}")
        for row in result["rows"]:
            print(f"| {' | '.join(f'{v:.4g}' if isinstance(v, float) else str(v) for v in row.values())} |")
    else:
        print("\n".join(f"{name:16} {value:8.3f}" for name, value in result.items()))


if __name__ == "__main__":
    main()
