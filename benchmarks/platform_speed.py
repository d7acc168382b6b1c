"""What the platform costs and what workers bring, as ratios in one run: images per second of real jobs.

    python benchmarks/platform_speed.py overhead|workers [--json] [--rounds 2] [--steps 100]

overhead: a job of the platform (Ray Train in-process, MLflow on SQLite, checkpoints, EMA, logging) against a bare
PyTorch loop over the same network with the same number format, optimizer, clipping and EMA. At least 0.95 is wanted.

workers: the same job on 2 workers with one thread each against 1 worker with one thread; equal global batch of 32.

64x64 phantoms and a network of 1.4 M parameters, otherwise as in jobs/kaggle_small.yaml. Each measurement is a process
of its own; the two sides take turns, and figures are medians over all windows of 20 steps after the first two.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WINDOW = 20
SETTINGS = (
    "data.source=phantom",
    "data.phantom_count=400",
    "data.crop_background=false",
    "data.image_size=64",
    "model.dim_mults=[1,2,4,8]",
    "training.batch_size=16",
    "training.snapshot_epochs=[]",
    f"training.log_every_steps={WINDOW}",
    "training.validation_samples=0",
    "evaluation=null",
    "registry=null",
)


def platform_rates(folder: Path, steps: int, *overrides: str) -> list[float]:
    """Images per second of every window of a job that `lwddpm run` trains from the start."""
    settings = [*SETTINGS, f"data.path={folder}/data", f"output={folder}/runs", f"training.max_steps={steps}"]
    settings += [f"tracking.uri=sqlite:///{folder}/mlflow.db", *overrides]
    command = [sys.executable, "-m", "lwddpm", "run", "kaggle_small", "--fresh", "--json"]
    output = subprocess.run(
        command + [part for setting in settings for part in ("--set", setting)], capture_output=True, text=True
    )
    if output.returncode != 0:
        raise RuntimeError(output.stderr)
    from lwddpm.tracking.store import connect

    client = connect(f"sqlite:///{folder}/mlflow.db")
    history = client.get_metric_history(json.loads(output.stdout)["run_id"], "train/images_per_s")
    return [metric.value for metric in sorted(history, key=lambda metric: metric.step)][2:]


def bare_rates(folder: Path, steps: int) -> list[float]:
    """The same from `bare_loop` in a process of its own."""
    command = [sys.executable, __file__, "bare", "--steps", str(steps), "--data", f"{folder}/data"]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(json.loads(output.stdout))[2:]


def bare_loop(data: str, steps: int) -> list[float]:
    """Images per second of every window of a loop that does nothing but train."""
    import torch

    from lwddpm.config import TrainJob
    from lwddpm.data.store import open_dataset
    from lwddpm.diffusion.process import DiffusionProcess
    from lwddpm.jobfile import load_job
    from lwddpm.models.build import build_model
    from lwddpm.models.precision import choose_precision
    from lwddpm.training.allocator import tune_allocator
    from lwddpm.training.ema import ExponentialMovingAverage

    tune_allocator()
    job = load_job("kaggle_small", SETTINGS)
    assert isinstance(job, TrainJob)
    images = open_dataset(data).images("train")
    precision = choose_precision(job.training, job.model, torch.device("cpu"))
    model = precision.place(build_model(job.model))
    ema = ExponentialMovingAverage(model, job.training.ema_decay)
    process = DiffusionProcess(job.diffusion)
    optimizer = torch.optim.Adam(model.parameters(), lr=job.training.lr, fused=True)
    batch, rates = job.training.batch_size, []
    for _ in range(steps // WINDOW):
        start = time.perf_counter()
        for _ in range(WINDOW):
            chosen = torch.randint(len(images), (batch,)).numpy()
            x_0 = torch.from_numpy(images[chosen]).unsqueeze(1).float() / 127.5 - 1
            timesteps, noise = torch.randint(1000, (batch,)), torch.randn_like(x_0)
            x_t = precision.place_input(process.q_sample(x_0, timesteps, noise))
            with precision.autocast():
                prediction = model(x_t, timesteps)
            process.losses(prediction.float(), x_0, timesteps, noise).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            ema.update(model, 1000)
        rates.append(WINDOW * batch / (time.perf_counter() - start))
    return rates


def measure(what: str, rounds: int, steps: int) -> dict[str, float]:
    """Medians of both sides and their ratio."""
    sides: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(rounds):
            if what == "overhead":
                turn = {"platform": platform_rates(folder, steps), "bare": bare_rates(folder, steps)}
            else:
                one = ("training.batch_size=32", "workers.cpus_per_worker=1")
                turn = {
                    "2 workers": platform_rates(folder, steps, "workers.count=2", *one),
                    "1 worker": platform_rates(folder, steps, "workers.count=1", *one),
                }
            for side, rates in turn.items():
                sides.setdefault(side, []).extend(rates)
    medians = {f"{side}, images/s": statistics.median(rates) for side, rates in sides.items()}
    first, second = medians.values()
    return {**medians, "ratio": first / second}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "workers", "bare"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if arguments.what == "bare":
        print(json.dumps(bare_loop(arguments.data, arguments.steps)))
        return
    result = measure(arguments.what, arguments.rounds, arguments.steps)
    print(json.dumps(result) if arguments.json else "\n".join(f"{k:22} {v:8.2f}" for k, v in result.items()))


if __name__ == "__main__":
    main()
