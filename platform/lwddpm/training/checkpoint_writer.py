"""Checkpoints written beside the training: it waits for a copy in the host's memory, not for the disk."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn

from lwddpm.training.checkpoint import TrainingState, tensors_of, write_checkpoint


class CheckpointWriter:
    """Copies what a checkpoint holds, then writes it in a thread; at most one is being written.

    The thread keeps the order that durability needs: written, forced to the disk, renamed, and only then are older ones
    removed. Whatever dies in between, the newest checkpoint by name is whole. Leaving the context waits for the last.

    Args:
        run_dir: receives the checkpoints.
        keep: the newest so many stay.
    """

    def __init__(self, run_dir: Path, keep: int) -> None:
        self._run_dir, self._keep = run_dir, keep
        self._copies: dict[tuple[str, str], Tensor] = {}
        self._from_gpu = False
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: tuple[int, Future[Path]] | None = None

    def save(
        self,
        state: TrainingState,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
    ) -> None:
        """Begin to write a checkpoint; the training may go on at once. The one before must have been `finished`."""
        assert self._writing is None
        files = {
            file: {name: self._copy(file, name, value) for name, value in tensors.items()}
            for file, tensors in tensors_of(modules, optimizers).items()
        }
        if self._from_gpu:
            torch.cuda.synchronize()  # copies from a GPU are under way
        self._writing = state.step, self._threads.submit(write_checkpoint, self._run_dir, state, files, self._keep)

    def finished(self, *, wait: bool) -> tuple[int, Path] | None:
        """Step and folder of a checkpoint that has come to be wholly on disk since the last call.

        Args:
            wait: for the one that is being written, if there is one.

        Raises:
            JobError: the disk did not take it.
        """
        if self._writing is None or not (wait or self._writing[1].done()):
            return None
        (step, writing), self._writing = self._writing, None
        return step, writing.result()

    def _copy(self, file: str, name: str, value: Tensor) -> Tensor:
        """The value in memory that is kept for it: allocating takes longer than copying."""
        self._from_gpu |= value.is_cuda
        copy = self._copies.get((file, name))
        if copy is None or copy.shape != value.shape or copy.dtype != value.dtype:
            # contiguous: a checkpoint is the same bytes whatever memory format the run used
            copy = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
            self._copies[file, name] = copy
        return copy.copy_(value, non_blocking=True)

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown()
