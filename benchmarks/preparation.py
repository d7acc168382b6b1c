"""Preparing a folder of images with the platform against a plain Pillow loop, as a ratio in one run.

    python benchmarks/preparation.py --source FOLDER [--json] [--rounds 3] [--cpus 2]

The loop: one process, for every file open, convert("L"), resize to 128 x 128 (Lanczos); it keeps nothing. The platform:
all of `prepare_dataset` on Ray, from listing the files to the published dataset, so with hashing, grouping of
duplicates, splitting and writing. Ray is already up, with its worker processes started, as in a session that goes on.
Both read every file once before, and take turns; figures are medians.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from PIL import Image, UnidentifiedImageError

from lwddpm.cluster.session import ray_map
from lwddpm.config import DataConfig
from lwddpm.data.prepare import prepare_dataset, scan

IMAGE_SIZE = 128


def pillow_loop(source: str, names: list[str]) -> float:
    """Seconds of the plain loop over all files."""
    start = time.perf_counter()
    for name in names:
        try:
            with Image.open(Path(source, name)) as image:
                image.convert("L").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
        except UnidentifiedImageError:
            continue
    return time.perf_counter() - start


def platform(source: str) -> tuple[float, dict[str, Any]]:
    """Seconds of a whole preparation, and what it found."""
    with tempfile.TemporaryDirectory() as folder:
        data = DataConfig(source=source, path=f"{folder}/dataset", image_size=IMAGE_SIZE)
        start = time.perf_counter()
        dataset = prepare_dataset(data, ray_map)
        seconds = time.perf_counter() - start
    duplicates = dataset.manifest.duplicates.model_dump(exclude={"label_conflicts"})
    return seconds, {"images": dataset.manifest.num, "rejected": len(dataset.manifest.rejected)} | duplicates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="folder of images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpus", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()

    source, (names, *_) = scan(DataConfig(source=arguments.source, image_size=IMAGE_SIZE))
    if source.simulated:
        parser.error("--source must be a folder of images")
    ray.init(address="local", num_cpus=arguments.cpus, include_dashboard=False, log_to_driver=False)
    try:
        platform(arguments.source)
        rounds = [(pillow_loop(arguments.source, names), *platform(arguments.source)) for _ in range(arguments.rounds)]
    finally:
        ray.shutdown()
    loop_s = statistics.median(loop for loop, _, _ in rounds)
    platform_s = statistics.median(seconds for _, seconds, _ in rounds)
    ratio = statistics.median(loop / seconds for loop, seconds, _ in rounds)
    result = {"cpus": arguments.cpus, "loop_s": loop_s, "platform_s": platform_s, "ratio": ratio} | rounds[0][2]
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{result['images']} images, {result['groups']} groups, {arguments.cpus} CPUs")
    print(f"Pillow loop, one process  {loop_s:6.2f} s")
    print(f"platform, all of it       {platform_s:6.2f} s")
    print(f"ratio                     {ratio:6.2f}")


if __name__ == "__main__":
    main()
