"""Errors that one process of a training meets end all of them: none waits for ever for one that has given up."""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist

from lwddpm import errors
from lwddpm.errors import LwddpmError

_Result = TypeVar("_Result")


def together(action: Callable[[], _Result], device: torch.device) -> _Result:
    """Do something on this rank, and wait until all ranks have done theirs; every rank calls this at the same place.

    Args:
        action: without collective operations of its own.
        device: of this rank, for what the process group exchanges.

    Raises:
        LwddpmError: on every rank the same, if any rank met one: that of the lowest such rank.
    """
    error: LwddpmError | None = None
    try:
        result = action()
    except LwddpmError as met:
        error = met
    if dist.is_initialized() and dist.get_world_size() > 1:
        rank, world = dist.get_rank(), dist.get_world_size()
        first = torch.tensor(world if error is None else rank, device=device)
        dist.all_reduce(first, dist.ReduceOp.MIN)
        source = int(first.item())
        if source < world:
            record = [errors.to_dict(error) if error is not None and rank == source else None]
            dist.broadcast_object_list(record, src=source, device=device)
            if record[0] is not None and rank != source:
                error = errors.from_dict(record[0])
    if error is not None:
        raise error
    return result
