"""The process that draws slices: apart from the server, so that it can be stopped and does not slow the pages.

Every line on stdin is an order, every line on stdout a JSON object: how far it is, and at the end of an order a
`state`. An order leaves `images.npy` and, where the training images are at hand, `nearest.json` in its folder. The
process stays for the next order, because importing torch takes seconds; it ends when stdin does, or when no order has
come for ten minutes.
"""

import json
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from lwddpm.cluster.generate import generate_images
from lwddpm.cluster.session import Session
from lwddpm.config import SamplingConfig, WorkersConfig
from lwddpm.data.store import open_dataset
from lwddpm.diffusion.editing import Edit, Inpainting, Variation
from lwddpm.errors import LwddpmError
from lwddpm.evaluation.similarity import ssim_nearest

T = TypeVar("T")
R = TypeVar("R")
_MOST_COMPARED = 20_000  # training slices; a larger dataset is compared by a draw of so many
_QUERIES = 16
_IDLE_S = 600.0
_NICE = 5


class _ReportingSession(Session):
    """Computes in this process and reports how many slices are done."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        super().__init__(WorkersConfig())
        self.address, self._tell = None, tell

    def worker_map(
        self, function: Callable[[T], R], items: Sequence[T], *, description: str, exported: object = None
    ) -> Iterator[R]:
        done = 0
        for item in items:
            yield function(item)
            done += len(item) if isinstance(item, range) else 1
            self._tell(done)


def nearest(images: np.ndarray, path: str, tell: Callable[[int], None]) -> list[dict[str, Any]]:
    """For each slice the training slice of highest SSIM, plain or mirrored as training sees it.

    Args:
        images: uint8 [N, S, S].
        path: the dataset; of a large one a random draw of its training slices is compared.
        tell: gets the number of slices done.
    """
    dataset = open_dataset(path)
    bank = dataset.images("train")
    chosen = np.arange(len(bank))
    if len(bank) > _MOST_COMPARED:
        chosen = np.sort(np.random.default_rng(0).choice(len(bank), _MOST_COMPARED, replace=False))
        bank = bank[chosen]
    sources, labels = dataset.sources("train"), dataset.labels("train")
    matches: list[dict[str, Any]] = []
    for start in range(0, len(images), _QUERIES):
        part = images[start : start + _QUERIES]
        values, indices = ssim_nearest(np.concatenate([part, part[:, :, ::-1]]), np.array(bank))
        for plain in range(len(part)):
            row = max(plain, plain + len(part), key=lambda row: float(values[row]))
            index = int(chosen[indices[row]])
            matches.append(
                {
                    "index": index,
                    "ssim": float(values[row]),
                    "mirrored": row != plain,
                    "source": sources[index],
                    "label": dataset.label_names[labels[index]],
                }
            )
        tell(len(matches))
    return matches


def draw(order: dict[str, Any], tell: Callable[..., None]) -> None:
    """Carry one order out."""
    folder, count = Path(order["folder"]), order["count"]
    sampling = SamplingConfig.model_validate(order["sampling"])
    tell(stage="drawing", done=0, total=count)
    with _ReportingSession(lambda done: tell(stage="drawing", done=done, total=count)) as session:
        images = generate_images(Path(order["model_dir"]), sampling, count, session, edit=_edit(order["given"]))
    np.save(folder / "images.npy", images)
    if order["dataset"] is not None:
        tell(stage="comparing", done=0, total=count)
        matches = nearest(images, order["dataset"], lambda done: tell(stage="comparing", done=done, total=count))
        (folder / "nearest.json").write_text(json.dumps(matches))


def _edit(file: str | None) -> Edit | None:
    """What a drawing begins with."""
    if file is None:
        return None
    with np.load(file, allow_pickle=False) as given:
        source = torch.from_numpy(given["source"])
        if "mask" in given:
            return Inpainting(source, torch.from_numpy(given["mask"]))
        return Variation(source, int(given["noising_steps"]))


def main() -> None:
    os.nice(_NICE)
    out, sys.stdout = sys.stdout, sys.stderr  # libraries print; stdout is for messages

    def tell(**message: Any) -> None:
        print(json.dumps(message), file=out, flush=True)

    while select.select([sys.stdin], [], [], _IDLE_S)[0] and (line := sys.stdin.readline()):
        try:
            draw(json.loads(line), tell)
            tell(state="done")
        except LwddpmError as error:
            tell(state="failed", note=str(error))
        except Exception:
            traceback.print_exc()
            tell(state="failed", note="drawing failed; the reason is in the board's log")


if __name__ == "__main__":
    main()
