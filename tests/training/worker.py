"""Training processes, for the tests that kill one or run two of them.

It imports once, which takes seconds. Each line of standard input, a list in JSON, is run in a process of its own:

JOB.json DATASET FOLDER kill STEP         dies by SIGKILL at STEP, once a checkpoint is there
JOB.json DATASET FOLDER ranks WORLD PORT  becomes WORLD ranks, in float64; rank 0 writes values.json

Its exit code comes back as a line; what it says is in FOLDER/errors.
"""

import gc
import json
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch
import torch.distributed as dist

from lwddpm.config import DiffusionConfig, SamplingConfig, TrainJob
from lwddpm.data.store import open_dataset
from lwddpm.diffusion.chain import make_scheduler
from lwddpm.training import denoising
from lwddpm.training.checkpoint import latest_checkpoint
from lwddpm.training.loop import train
from lwddpm.training.reporter import RecordingReporter, SilentReporter


class KillsItself(SilentReporter):
    def __init__(self, at: int, folder: Path) -> None:
        self.at, self.folder = at, folder

    def metrics(self, rows: dict[int, dict[str, float]]) -> None:
        if max(rows) >= self.at:
            while latest_checkpoint(self.folder) is None:  # it is being written beside the steps
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)


def fork(world: int) -> int:
    """Rank of this process among `world`, of which the first starts the others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from Python 3.12 on, of other threads; they hold no lock
        return next((rank for rank in range(1, world) if os.fork() == 0), 0)


def import_what_is_imported_late() -> None:
    """Half of torch with the first optimizer, diffusers with the first drawing: seconds of every process otherwise."""
    torch.optim.SGD([torch.zeros(1)])
    make_scheduler(DiffusionConfig(), SamplingConfig())
    gc.freeze()  # a collection in a forked process would write to, and so copy, all memory


def serve() -> None:
    import_what_is_imported_late()
    denoising.GRID_STEPS = 5  # as in the process of the tests
    for line in sys.stdin:
        arguments = json.loads(line)
        if fork(2) == 1:
            with (Path(arguments[2]) / "errors").open("w") as errors:
                os.dup2(errors.fileno(), sys.stdout.fileno())
                os.dup2(errors.fileno(), sys.stderr.fileno())
            os._exit(_ends_with(arguments))
        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)


def _ends_with(arguments: list[str]) -> int:
    """The exit code of a call."""
    try:
        run(*arguments)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def run(job_file: str, dataset: str, folder: str, mode: str, number: str, port: str = "") -> None:
    rank = fork(int(number)) if mode == "ranks" else 0
    job, data = TrainJob.model_validate_json(Path(job_file).read_text()), open_dataset(dataset)
    if mode == "kill":
        train(job, data, Path(folder), KillsItself(int(number), Path(folder)), torch.device("cpu"))
        return
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    dist.init_process_group("gloo", rank=rank, world_size=int(number))
    reporter = RecordingReporter()
    train(job, data, Path(folder), reporter, torch.device("cpu"))
    if rank == 0:
        (Path(folder) / "values.json").write_text(json.dumps(reporter.values))
    else:
        assert vars(reporter) == vars(RecordingReporter()), "only rank 0 reports"
    dist.destroy_process_group()
    if rank == 0:
        assert not any(os.wait()[1] for _ in range(1, int(number)))


if __name__ == "__main__":
    serve()
