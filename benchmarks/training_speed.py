"""A training step of the platform's network against those of two public libraries, as ratios in one run.

    python benchmarks/training_speed.py [--json] [--rounds 3] [--threads 2] [--image-size 128] [--batch-size 4]
                                        [--device cuda]

Each network trains as it comes. LW-DDPM: the paper's network with the number format, memory layout, allocator settings,
fused Adam and, on a GPU, compilation that the platform chooses by itself for the paper's training.
denoising-diffusion-pytorch's Unet and diffusers' UNet2DModel: float32, their default memory format and attention,
torch's default Adam; four levels as in the paper, with widths chosen so that the parameter counts match within 3 %. A
step is forward, backward and Adam on a batch of noise.

Each network has a process of its own, since the allocator settings act on a whole process; the processes take turns, so
that a disturbance of the machine meets all of them. Figures are medians of steps; with more threads than idle cores
they say little.
"""

import argparse
import functools
import json
import multiprocessing
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from turns import median_steps

PLATFORM, *OTHERS = NETWORKS = ("lwddpm", "denoising-diffusion-pytorch", "diffusers")
MAX_SIZE_DIFFERENCE = 0.03
PAPERS_STEPS = 20_000  # long enough for compiling to pay on a GPU


def make_step(name: str, image_size: int, batch_size: int, device_name: str) -> tuple[Callable[[], None], int]:
    """One training step of a network, and its number of parameters."""
    import torch

    device = torch.device(device_name)
    network: torch.nn.Module
    autocast: Callable[[], Any] = nullcontext
    x = torch.randn(batch_size, 1, image_size, image_size, device=device)
    timesteps = torch.randint(0, 1000, (batch_size,), device=device)
    if name == PLATFORM:
        from lwddpm.config import ModelConfig, TrainingConfig
        from lwddpm.models.build import build_model
        from lwddpm.models.precision import choose_precision
        from lwddpm.training.allocator import tune_allocator

        tune_allocator()
        config = ModelConfig()
        precision = choose_precision(TrainingConfig(), config, device, PAPERS_STEPS)
        network, x, autocast = precision.place(build_model(config)), precision.place_input(x), precision.autocast
        if precision.compile:
            network.compile()
    elif name == "diffusers":
        from diffusers import UNet2DModel

        network = UNet2DModel(in_channels=1, out_channels=1, block_out_channels=(64, 128, 128, 192))
    else:
        from denoising_diffusion_pytorch import Unet

        network = Unet(dim=60, init_dim=64, dim_mults=(1, 2, 3, 4), channels=1)
    network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-4, fused=name == PLATFORM or None)

    def step() -> None:
        with autocast():
            prediction = network(x, timesteps)
        prediction = getattr(prediction, "sample", prediction)  # diffusers wraps its output
        torch.nn.functional.smooth_l1_loss(prediction.float(), x).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step, sum(parameter.numel() for parameter in network.parameters())


def measure(rounds: int, threads: int, image_size: int, batch_size: int, device: str) -> dict[str, Any]:
    """Median step of every network, and how many times slower than the platform's each other one is.

    Raises:
        RuntimeError: the parameter counts do not match, for instance after a library changed its network.
    """
    makers = {name: functools.partial(make_step, name, image_size, batch_size, device) for name in NETWORKS}
    medians = median_steps(makers, rounds, threads)
    step_s = {name: seconds for name, (seconds, _) in medians.items()}
    parameters = {name: count for name, (_, count) in medians.items()}
    for name in OTHERS:
        difference = parameters[name] / parameters[PLATFORM] - 1
        if abs(difference) > MAX_SIZE_DIFFERENCE:
            raise RuntimeError(f"{name}: {parameters[name]:,} parameters differ by {difference:+.1%}, at most 3 %")
    return {
        "image_size": image_size,
        "batch_size": batch_size,
        "device": device,
        "threads": threads,
        "rounds": rounds,
        "parameters": parameters,
        "step_s": step_s,
        "speedup": {name: step_s[name] / step_s[PLATFORM] for name in OTHERS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    shape = (arguments.image_size, arguments.batch_size)
    result = measure(arguments.rounds, arguments.threads, *shape, arguments.device)
    if arguments.json:
        print(json.dumps(result))
        return
    size = f"{result['image_size']} x {result['image_size']}"
    where = f"{result['threads']} threads" if result["device"] == "cpu" else "GPU"
    print(f"Training step, {size}, batch {result['batch_size']}, {where} (median)")
    for name in NETWORKS:
        ratio = f"{result['speedup'][name]:.2f} x the platform's" if name in OTHERS else ""
        print(f"  {name:28} {result['parameters'][name]:>12,} parameters {result['step_s'][name]:8.4f} s  {ratio}")


if __name__ == "__main__":
    main()
