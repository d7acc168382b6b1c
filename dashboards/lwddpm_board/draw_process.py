"""The process that draws slices, so that it can be stopped and never slows the pages: `python -m` with JSON on stdin.

Writes `images.npy` and, where the training images are at hand, `nearest.json` into a folder. Every line on stdout is a
JSON object: how far it is, or what went wrong.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np

from lwddpm.cluster.generate import generate_images
from lwddpm.cluster.session import Session
from lwddpm.config import SamplingConfig, WorkersConfig
from lwddpm.data.store import open_dataset
from lwddpm.errors import LwddpmError
from lwddpm.evaluation.similarity import ssim_nearest

T = TypeVar("T")
R = TypeVar("R")
_MOST_COMPARED = 20_000  # training slices; a larger dataset is compared by a draw of so many
_QUERIES = 16


class _Told(Session):
    """Computes in this process and tells how far it is."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        super().__init__(WorkersConfig())
        self.address, self._tell = None, tell

    def worker_map(self, function: Callable[[T], R], items: Sequence[T], *, description: str) -> Iterator[R]:
        done = 0
        for item in items:
            yield function(item)
            done += len(item) if isinstance(item, range) else 1
            self._tell(done)


def nearest(images: np.ndarray, path: str, tell: Callable[[int], None]) -> list[dict[str, Any]]:
    """For each slice, uint8 [N, S, S], the training slice of highest SSIM, plain or mirrored as training sees it."""
    dataset = open_dataset(path)
    bank = dataset.images("train")
    chosen = np.arange(len(bank))
    if len(bank) > _MOST_COMPARED:
        chosen = np.sort(np.random.default_rng(0).choice(len(bank), _MOST_COMPARED, replace=False))
        bank = bank[chosen]
    sources, labels = dataset.sources("train"), dataset.labels("train")
    found: list[dict[str, Any]] = []
    for start in range(0, len(images), _QUERIES):
        part = images[start : start + _QUERIES]
        values, indices = ssim_nearest(np.concatenate([part, part[:, :, ::-1]]), np.array(bank))
        for plain in range(len(part)):
            row = max(plain, plain + len(part), key=lambda row: float(values[row]))
            index = int(chosen[indices[row]])
            found.append(
                {
                    "index": index,
                    "ssim": float(values[row]),
                    "mirrored": row != plain,
                    "source": sources[index],
                    "label": dataset.labels_names[labels[index]],
                }
            )
        tell(len(found))
    return found


def main(wanted: dict[str, Any], out: TextIO) -> None:
    def tell(**message: Any) -> None:
        print(json.dumps(message), file=out, flush=True)

    folder, count = Path(wanted["folder"]), wanted["count"]
    sampling = SamplingConfig.model_validate(wanted["sampling"])
    tell(stage="drawing", done=0, total=count)
    with _Told(lambda done: tell(stage="drawing", done=done, total=count)) as session:
        images = generate_images(Path(wanted["model_dir"]), sampling, count, session)
    np.save(folder / "images.npy", images)
    if wanted["dataset"] is not None:
        tell(stage="comparing", done=0, total=count)
        found = nearest(images, wanted["dataset"], lambda done: tell(stage="comparing", done=done, total=count))
        (folder / "nearest.json").write_text(json.dumps(found))


if __name__ == "__main__":
    stdout, sys.stdout = sys.stdout, sys.stderr  # libraries print; stdout is for messages
    try:
        main(json.load(sys.stdin), stdout)
    except LwddpmError as error:
        print(json.dumps({"error": str(error)}), file=stdout, flush=True)
        sys.exit(1)
