"""Signals as processes meet them: the first asks the workers to stop, the second ends at once."""

import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lwddpm.cluster.stop import BackgroundCall, StopRequest, sigterm_kept

# A program whose background call computes in torch for ever and does not look at the stop file.
STUBBORN = """
import queue, sys, torch
from pathlib import Path
from lwddpm.cluster.stop import BackgroundCall, StopRequest, run_program

def compute():
    torch.set_num_threads(1)
    matrix = torch.rand(300, 300)
    print("computing", flush=True)
    while True:
        matrix = torch.nn.functional.normalize(matrix @ matrix)

def program():
    events = queue.SimpleQueue()
    try:
        with StopRequest(Path(sys.argv[1])):
            BackgroundCall(compute, events).start()
            events.get()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(130)

run_program(program)
"""


def _wait_for(file: Path, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def _stubborn(file: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", STUBBORN, str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "computing\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_process_whose_training_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "stop"
    with _stubborn(file) as process:
        process.send_signal(number)
        _wait_for(file)
        assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "interrupted\n")
    assert [line.partition(":")[0] for line in err.splitlines()] == ["stopping"]
    assert not file.exists()


def test_a_disk_that_refuses_the_stop_file_is_asked_again_and_raises_nothing(tmp_path: Path) -> None:
    file = tmp_path / "run" / "stop"  # in a folder that is not there yet
    with StopRequest(file) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        file.parent.mkdir()
        _wait_for(file)
    assert not file.exists()
    with StopRequest(tmp_path / "never" / "stop"):  # ends while the disk still refuses
        signal.raise_signal(signal.SIGINT)


def test_handlers_are_put_back_and_a_stale_file_is_removed(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    file = tmp_path / "stop"
    file.touch()
    with StopRequest(file) as stop:
        assert not file.exists()
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert not stop.requested
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with sigterm_kept():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) == before[1]


def test_a_background_call_hands_over_its_value_or_its_error() -> None:
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    call = BackgroundCall(lambda: events.put("first") or threading.current_thread(), events)
    call.start()
    assert list(iter(events.get, None)) == ["first"]
    assert call.result() is call
    failing = BackgroundCall(lambda: 1 / 0, events)
    failing.start()
    assert events.get() is None
    with pytest.raises(ZeroDivisionError):
        failing.result()
