"""How long comparing drawn slices with training slices takes, without drawing them.

    python benchmarks/audit_speed.py datasets/NAME --slices 10000 --threads 2

Slices are held-out ones and noisy copies of training slices, over and over: what they show does not change the time.
Prints the seconds of features, of searching them, and of the correlation under all transforms, and the peak memory, for
a tenth of the slices and for all.
"""

import argparse
import resource
import time

import numpy as np
import torch

from lwddpm.audit.canaries import planted
from lwddpm.audit.correlation import CorrelationSearch
from lwddpm.audit.feature_search import EXTRACTOR, FeatureSearch
from lwddpm.data.store import open_dataset
from lwddpm.evaluation.features import load_extractor

_CHUNK = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a prepared dataset")
    parser.add_argument("--slices", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = open_dataset(arguments.dataset)
    train = np.array(dataset.images("train"))
    held_out = np.concatenate([dataset.images("validation"), dataset.images("test")])
    slices = np.concatenate([held_out, planted(train[: len(held_out)], "noisy", 0)])
    extract = load_extractor(EXTRACTOR)
    begun = time.perf_counter()
    features = FeatureSearch(extract(train), extract(train[:, :, ::-1].copy()))
    print(f"features of {2 * len(train):,} training slices: {time.perf_counter() - begun:.1f} s, once for a dataset")
    begun = time.perf_counter()
    search = CorrelationSearch(train)
    print(f"preparing the correlation search: {time.perf_counter() - begun:.1f} s a worker\n")
    print("| slices | features s | correlation s | together s | CPU s | peak memory MiB |")
    print("|---:|---:|---:|---:|---:|---:|")
    for count in (arguments.slices // 10, arguments.slices):
        embedding_s = correlation_s = 0.0
        cpu = time.process_time()
        for first in range(0, count, _CHUNK):
            chunk = slices[np.arange(first, min(first + _CHUNK, count)) % len(slices)]
            begun = time.perf_counter()
            near = features(extract(chunk))
            embedding_s += time.perf_counter() - begun
            begun = time.perf_counter()
            search(chunk, near.rows)
            correlation_s += time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        together, cpu = embedding_s + correlation_s, time.process_time() - cpu
        row = f"| {count:,} | {embedding_s:.0f} | {correlation_s:.0f} | {together:.0f} | {cpu:.0f} | {peak:,} |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
