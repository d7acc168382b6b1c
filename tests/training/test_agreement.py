"""What one process of a training cannot do ends all of them, with its error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lwddpm.errors import DataError
from lwddpm.training.agreement import together

from ..processes import free_port

CODE = """
import json, os, sys
from datetime import timedelta
import torch
import torch.distributed as dist
from worker import fork, import_what_is_imported_late
from lwddpm.errors import CheckpointError, DataError
from lwddpm.training.agreement import together


def three_ranks(failing, port):
    rank = fork(3)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=3, timeout=timedelta(seconds=20))
    cpu = torch.device("cpu")

    def work():
        if rank in failing:
            raise (CheckpointError if rank == 2 else DataError)(f"rank {rank} does not see it")
        return rank

    try:
        said = f"result {together(work, cpu)}"
    except Exception as error:
        said = f"{type(error).__name__} {error.exit_code} {error}"
    assert together(lambda: 7, cpu) == 7  # nobody waits for an exchange of before
    os.write(1, f"{failing}: {said}\\n".encode())
    dist.destroy_process_group()
    if rank == 0:
        assert not any(os.wait()[1] for _ in range(2))


import_what_is_imported_late()
for failing, port in json.loads(sys.argv[1]):
    if fork(2) == 1:
        three_ranks(failing, port)
        os._exit(0)
    assert os.wait()[1] == 0
"""
EXPECTED = (
    ([], ["result 0", "result 1", "result 2"]),
    ([2], ["CheckpointError 1 rank 2 does not see it"] * 3),
    ([1, 2], ["DataError 2 rank 1 does not see it"] * 3),
)


@pytest.fixture(scope="module")
def said() -> list[str]:
    """By three processes at a time, forked from one that has imported, for each set of ranks that fail."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    }
    order = json.dumps([(failing, free_port()) for failing, _ in EXPECTED])
    done = subprocess.run(
        [sys.executable, "-c", CODE, order], capture_output=True, text=True, env=environment, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("failing", "expected"), EXPECTED)
def test_what_one_rank_cannot_do_ends_all_with_the_same_error(
    failing: list[int], expected: list[str], said: list[str]
) -> None:
    heard = [line.partition(": ") for line in said]
    assert sorted(text for ranks, _, text in heard if ranks == str(failing)) == expected


def test_a_process_alone_raises_what_it_meets() -> None:
    assert together(lambda: 3, torch.device("cpu")) == 3

    def fail() -> None:
        raise DataError("no dataset")

    with pytest.raises(DataError, match="no dataset"):
        together(fail, torch.device("cpu"))
