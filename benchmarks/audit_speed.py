"""How long comparing drawn slices with training slices takes, without drawing them.

    python benchmarks/audit_speed.py datasets/NAME --slices 10000 --threads 2 --keep FOLDER

Slices are held-out ones and noisy copies of training slices, over and over: what they show does not change the time.
Prints the seconds of features, of searching them, and of the correlation under all transforms, and the peak memory, for
a tenth of the slices and for all. CPU seconds are what counts on a machine that does something else, too.

With --keep what was measured is a line of FOLDER/chunks.jsonl for each 64 slices: the same command after a kill goes on
with the next, and leaves out the features of the training slices.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from lwddpm.audit.canaries import planted
from lwddpm.audit.correlation import CorrelationSearch
from lwddpm.audit.feature_search import EXTRACTOR, FeatureSearch
from lwddpm.data.store import open_dataset
from lwddpm.evaluation.features import load_extractor

_CHUNK = 64
_SAID = 10  # chunks between two lines of progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a prepared dataset")
    parser.add_argument("--slices", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="what was measured; a second run goes on there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = open_dataset(arguments.dataset)
    train = np.array(dataset.images("train"))
    held_out = np.concatenate([dataset.images("validation"), dataset.images("test")])
    slices = np.concatenate([held_out, planted(train[: len(held_out)], "noisy", 0)])
    extract = load_extractor(EXTRACTOR)
    kept = _Kept(arguments.keep, f"{dataset.version}, {arguments.threads} threads")
    with _timed() as spent:
        search = CorrelationSearch(train)
    print(f"preparing the correlation search: {spent['s']:.1f} s a worker, {spent['cpu_s']:.1f} CPU s", flush=True)
    with _timed() as spent:
        features = FeatureSearch(*kept.features(lambda: (extract(train), extract(train[:, :, ::-1].copy()))))
    told = "read" if kept.read else f"{spent['s']:.1f} s, {spent['cpu_s']:.1f} CPU s, once for a dataset"
    print(f"features of {2 * len(train):,} training slices: {told}", flush=True)
    for number, first in enumerate(range(0, arguments.slices, _CHUNK)):
        rows = np.arange(first, min(first + _CHUNK, arguments.slices))
        if (number, len(rows)) in kept.done:
            continue
        chunk = slices[rows % len(slices)]
        with _timed() as embedding:
            near = features(extract(chunk))
        with _timed() as correlation:
            search(chunk, near.rows)
        kept.add(number, len(rows), embedding, correlation)
        if number % _SAID == _SAID - 1:
            print(f"{rows[-1] + 1:,} of {arguments.slices:,}, {correlation['cpu_s']:.1f} CPU s a chunk", flush=True)
    print("\n| slices | features s | correlation s | together s | CPU s | peak memory MiB |")
    print("|---:|---:|---:|---:|---:|---:|")
    for count in (arguments.slices // 10, arguments.slices):
        print(kept.row(-(-count // _CHUNK)))


@contextmanager
def _timed() -> Iterator[dict[str, float]]:
    """Seconds, and CPU seconds of this process, of what is within."""
    spent: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield spent
    spent |= {"s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


class _Kept:
    """What was measured so far.

    Args:
        about: what it depends on; a folder of something else is refused.

    Attributes:
        done: numbers of the chunks, and how many slices they have.
        read: the features of the training slices were read.
    """

    def __init__(self, folder: Path | None, about: str) -> None:
        self._folder, self.read = folder, False
        self._lines: dict[int, dict[str, float]] = {}  # by the number of the chunk
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            known = folder / "about.txt"
            if not known.exists():
                known.write_text(about)
            if known.read_text() != about:
                raise SystemExit(f"--keep: {folder} must be of {about}, is of {known.read_text()}; name another folder")
            if (folder / "chunks.jsonl").exists():
                read = [json.loads(line) for line in (folder / "chunks.jsonl").read_text().splitlines()]
                self._lines = {int(line["number"]): line for line in read}
        self.done = {(number, int(line["n"])) for number, line in self._lines.items()}

    def features(self, make: Callable[[], tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the training slices and of them mirrored."""
        path = None if self._folder is None else self._folder / "features.npz"
        if path is not None and path.exists():
            with np.load(path, allow_pickle=False) as file:
                self.read = True
                return torch.from_numpy(file["train"]), torch.from_numpy(file["mirrored"])
        train, mirrored = make()
        if path is not None:
            np.savez(path, train=train.numpy(), mirrored=mirrored.numpy())
        return train, mirrored

    def add(self, number: int, n: int, embedding: dict[str, float], correlation: dict[str, float]) -> None:
        line = {"number": number, "n": n, "features_s": embedding["s"], "correlation_s": correlation["s"]}
        line["cpu_s"] = embedding["cpu_s"] + correlation["cpu_s"]
        line["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self._lines[number] = line  # in place of a shorter one, of a run for fewer slices
        if self._folder is not None:
            with (self._folder / "chunks.jsonl").open("a") as stream:
                stream.write(json.dumps(line) + "\n")

    def row(self, chunks: int) -> str:
        """A row of the table, of the first chunks."""
        lines = [line for number, line in self._lines.items() if number < chunks]
        total = {key: sum(line[key] for line in lines) for key in ("n", "features_s", "correlation_s", "cpu_s")}
        peak = max(line["peak_mib"] for line in lines)
        together = total["features_s"] + total["correlation_s"]
        return (
            f"| {total['n']:,.0f} | {total['features_s']:.0f} | {total['correlation_s']:.0f} | {together:.0f} | "
            f"{total['cpu_s']:.0f} | {peak:,.0f} |"
        )


if __name__ == "__main__":
    main()
