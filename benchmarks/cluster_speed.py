"""What a cluster's control plane costs, with simulated nodes on one machine.

    python benchmarks/cluster_speed.py submissions|workers|evaluation [--json] [--jobs 100]

submissions: so many small jobs, submitted back to back to a head that `lwddpm up` starts; all must be accounted for.
Seconds of a submission, and until the last has ended. Each driver imports the platform, which is most of the work.

workers: seconds from nothing to a training group of 1, 2, 4, 8 and 16 workers that has done its first all-reduce and
ended, and the slope: seconds for each worker more. Ray is told of 16 CPUs; the real ones are shared.

evaluation: the evaluation of one model with 1, 2 and 4 workers of one thread: seconds, and whether all metrics agree.
Ray is told of 4 CPUs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORKERS = (1, 2, 4, 8, 16)
TINY = (
    "data.phantom_count=60",
    "data.image_size=32",
    "model.dim=8",
    "model.dim_mults=[1,2]",
    "training.max_steps=2",
    "training.batch_size=8",
    "training.warmup_steps=0",
    "training.validation_samples=0",
    "training.snapshot_epochs=[]",
)


def lwddpm(*arguments: str, folder: Path) -> Any:
    """The JSON that a verb prints, with `folder` as home and working folder."""
    environment = os.environ | {"HOME": str(folder)}
    command = [sys.executable, "-m", "lwddpm", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr + done.stdout)
    return json.loads(done.stdout)


def submissions(count: int) -> dict[str, float]:
    """Submit `count` jobs that prepare the same small dataset, and wait for all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        address = lwddpm("up", folder=folder)["ray"]
        try:
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / ".ray" / "auth_token")}
            from lwddpm.head.jobserver import JobServer
            from lwddpm.jobfile import validate_job

            server, start = JobServer(address), time.perf_counter()
            data = {"source": "phantom", "phantom_count": 20, "image_size": 16, "path": "data"}
            for index in range(count):
                server.submit(validate_job({"kind": "prepare", "name": f"small-{index}", "data": data}, "benchmark"))
            submitted = time.perf_counter() - start
            while any(not found.ended for found in server.jobs()):
                time.sleep(1)
            ended = time.perf_counter() - start
            found = server.jobs()
            names = {job.name for job in found}
            assert names == {f"small-{index}" for index in range(count)}, "a job is missing"
            bad = [job.id for job in found if job.state != "SUCCEEDED"]
        finally:
            lwddpm("down", folder=folder)
    return {"seconds a submission": submitted / count, "seconds a job": ended / count, "not succeeded": len(bad)}


def workers() -> dict[str, float]:
    """Start-up seconds by number of workers."""
    import numpy as np
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    seconds = {}
    with tempfile.TemporaryDirectory() as name:
        ray.init(address="local", num_cpus=max(WORKERS), include_dashboard=False, log_to_driver=False)
        for count in (1, *WORKERS):  # the first start also warms caches, and is measured again
            start = time.perf_counter()
            TorchTrainer(
                _trivial,
                scaling_config=ScalingConfig(num_workers=count, resources_per_worker={"CPU": 1}),
                run_config=RunConfig(name=f"start-{count}-{start:.0f}", storage_path=name),
            ).fit()
            seconds[count] = time.perf_counter() - start
        ray.shutdown()
    slope = np.polyfit(list(seconds), list(seconds.values()), 1)[0]
    return {f"{count} workers, s": value for count, value in seconds.items()} | {"s a worker more": float(slope)}


def _trivial() -> None:
    import torch

    torch.set_num_threads(1)
    total = torch.ones(1)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)


def evaluation() -> dict[str, float]:
    """Seconds of an evaluation by number of workers; raises where a metric differs."""
    import ray

    os.environ["RAY_AUTH_MODE"] = "disabled"  # the command's home has no token
    found: dict[int, tuple[float, dict[str, float]]] = {}
    context = ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    address = context.address_info["gcs_address"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = ("data.path=data", f"tracking.uri=sqlite:///{folder}/mlflow.db")
        _run("demo", folder, *TINY, *places, "evaluation=null", address=address)
        for count in (1, 2, 4):
            measured = ("evaluation.metrics=[fd_lite0,ssim_pairs,ssim_nearest]", "evaluation.num_samples=60")
            steps = ("evaluation.num_inference_steps=50", "evaluation.batch_size=2")
            group = (f"workers.count={count}", "workers.cpus_per_worker=1")
            start = time.perf_counter()
            result = _run("evaluate", folder, *places, *measured, *steps, *group, *MODEL, address=address)
            found[count] = (time.perf_counter() - start, result["metrics"])
    ray.shutdown()
    reference = found[1][1]
    for count, (_, metrics) in found.items():
        worst = max(abs(metrics[key] - value) / max(1e-6, abs(value)) for key, value in reference.items())
        assert worst < 1e-4, f"{count} workers: a metric differs by {worst:.2g}"
    return {f"{count} workers, s": seconds for count, (seconds, _) in found.items()}


MODEL = (
    "model_uri=models:/lw-ddpm-demo@candidate",
    "data.source=phantom",
    "data.phantom_count=60",
    "data.image_size=32",
)


def _run(job: str, folder: Path, *overrides: str, address: str) -> Any:
    settings = (part for override in overrides for part in ("--set", override))
    return lwddpm("run", job, "--address", address, *settings, folder=folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("submissions", "workers", "evaluation"))
    parser.add_argument("--jobs", type=int, default=100, help="of `submissions`")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if arguments.what == "submissions":
        result = submissions(arguments.jobs)
    else:
        result = workers() if arguments.what == "workers" else evaluation()
    if arguments.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:24} {value:8.2f}" for name, value in result.items()))


if __name__ == "__main__":
    main()
