"""The steps since the last report."""

import time
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor


class Window:
    """Losses and norms of the steps since the last report, kept on the device so that no step waits for them.

    Args:
        names: of the values of each step.
        size: steps that it holds.
    """

    def __init__(self, names: Sequence[str], size: int, device: torch.device, world: int) -> None:
        self.names, self.size, self.world, self.count = names, size, world, 0
        self.values = torch.zeros(len(names), size + 1, device=device)  # the last column carries the stop flag
        self.start = time.perf_counter()
        self.reported = False

    @property
    def full(self) -> bool:
        return self.count == self.size

    def add(self, values: Mapping[str, Tensor]) -> None:
        for row, name in enumerate(self.names):
            self.values[row, self.count] = values[name]
        self.count += 1

    def agree(self, stop: bool) -> bool:
        """Average over the ranks; true on all of them if any wants to stop."""
        self.values[:, -1] = float(stop)
        if self.world > 1:
            dist.all_reduce(self.values)
            self.values /= self.world
        return bool(self.values[0, -1] > 0)

    def read(self) -> tuple[dict[str, list[float]], float]:
        """The values of each step by name, and steps per second."""
        self.reported = True
        values = dict(zip(self.names, self.values[:, : self.count].tolist(), strict=True))
        return values, self.count / (time.perf_counter() - self.start)

    def reset(self) -> None:
        self.count, self.start, self.reported = 0, time.perf_counter(), False
