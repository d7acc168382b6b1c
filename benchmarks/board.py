"""How long the experiment board takes for its first view of many runs and versions.

    python benchmarks/board.py [--runs 1000] [--versions 20] [--json]

Fills an MLflow store on SQLite with runs of a job file's settings, curves and scores, starts `lwddpm dashboard` and
measures the first answer of each page to a board that has just begun, then the best of three. A browser adds the time
to draw the page, which tests/dashboards measures too.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from lwddpm.jobfile import load_job
from lwddpm.tracking.store import connect

PAGES = ("runs", "runs?nested=true&status=FINISHED", "registry", "searches", "datasets", "generate")
MODEL = "lw-ddpm"


def fill(folder: Path, num_runs: int, num_versions: int) -> str:
    """Make the store; its tracking URI."""
    uri = f"sqlite:///{folder}/mlflow.db"
    client = connect(uri)
    experiment = client.create_experiment("lw-ddpm", str(folder / "artifacts"))
    params = [Param(key, str(value)) for key, value in _flat(load_job("demo").model_dump(mode="json")).items()]
    tags = [RunTag("lwddpm.kind", "train"), RunTag("lwddpm.dataset_version", "0123456789abcdef")]
    tags += [RunTag(f"lwddpm.version.{name}", "1.2.3") for name in ("torch", "ray", "mlflow", "numpy", "diffusers")]
    runs = []
    for number in range(num_runs):
        run_id = client.create_run(experiment, run_name=f"run-{number:04d}").info.run_id
        metrics = [
            Metric(key, value / (1 + step / 100), 0, step)
            for step in range(0, 200, 20)
            for key, value in {"train/loss": 1.0, "val/loss": 1.1, "train/images_per_s": 80.0}.items()
        ]
        metrics += [Metric("eval/fd_lite0", 100 - number / 20, 0, 200), Metric("eval/fd_lite0_floor", 20.0, 0, 200)]
        client.log_batch(run_id, metrics=metrics, params=params, tags=tags)
        client.set_terminated(run_id)
        runs.append(run_id)
    _register(client, folder, runs[-num_versions:])
    return uri


def _register(client: MlflowClient, folder: Path, runs: list[str]) -> None:
    client.create_registered_model(MODEL)
    for run_id in runs:
        tags = {"eval/fd_lite0": "95.7", "eval/fd_lite0_floor": "22", "lwddpm.dataset_version": "0123456789abcdef"}
        client.create_model_version(MODEL, str(folder / "artifacts" / run_id), run_id, tags=tags)
    client.set_registered_model_alias(MODEL, "candidate", str(len(runs)))


def _flat(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


@contextmanager
def board(folder: Path, uri: str) -> Iterator[str]:
    """A board that has just begun to listen; its address."""
    command = [sys.executable, "-m", "lwddpm", "dashboard", "--port", "0", "--tracking-uri", uri]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield next(found[1] for line in process.stderr if (found := re.search(r"(http://\S+)", line)))
    finally:
        process.terminate()
        process.wait(30)


def seconds(address: str, page: str) -> float:
    start = time.perf_counter()
    with urllib.request.urlopen(f"{address}/{page}", timeout=120) as answer:
        answer.read()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri = fill(folder, arguments.runs, arguments.versions)
        with board(folder, uri) as address:
            first = {page: seconds(address, page) for page in PAGES}
            best = {page: min(seconds(address, page) for _ in range(3)) for page in PAGES}
    if arguments.json:
        print(json.dumps({"runs": arguments.runs, "versions": arguments.versions, "first": first, "best": best}))
        return
    print("| page | first answer, s | best of 3, s |\n|---|---:|---:|")
    for page in PAGES:
        print(f"| {page} | {first[page]:.2f} | {best[page]:.2f} |")


if __name__ == "__main__":
    main()
