"""The steps since the last report."""

import time

import torch
import torch.distributed as dist
from torch import Tensor


class Window:
    """Losses and norms of the steps since the last report, kept on the device so that no step waits for them."""

    def __init__(self, size: int, device: torch.device, world: int) -> None:
        self.values = torch.zeros(2, size + 1, device=device)  # the last column carries the stop flag
        self.size, self.world, self.count = size, world, 0
        self.start = time.perf_counter()
        self.reported = False

    @property
    def full(self) -> bool:
        return self.count == self.size

    def add(self, loss: Tensor, norm: Tensor) -> None:
        self.values[0, self.count] = loss
        self.values[1, self.count] = norm
        self.count += 1

    def agree(self, stop: bool) -> bool:
        """Average over the ranks; true on all of them if any wants to stop."""
        self.values[:, -1] = float(stop)
        if self.world > 1:
            dist.all_reduce(self.values)
            self.values /= self.world
        return bool(self.values[0, -1] > 0)

    def read(self) -> tuple[list[float], list[float], float]:
        """Losses, gradient norms, steps per second."""
        self.reported = True
        losses, norms = self.values[:, : self.count].tolist()
        return losses, norms, self.count / (time.perf_counter() - self.start)

    def reset(self) -> None:
        self.count, self.start, self.reported = 0, time.perf_counter(), False
