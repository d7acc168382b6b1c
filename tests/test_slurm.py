"""The Slurm recipe, run with stand-ins for Slurm and Ray that note how they are called."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "jobs" / "slurm.sh"

STAND_INS = {
    "scontrol": 'echo "scontrol $*" >> "$CALLS"; if [[ $1 == show ]]; then printf "node1\\nnode2\\nnode3\\n"; fi',
    "getent": "printf '127.0.1.1 STREAM node1\\n10.0.0.1 STREAM node1\\n'",
    "srun": 'echo "srun $*" >> "$CALLS"; exec sleep 60',
    "ray": """
modes=$(stat -c %a "$RAY_AUTH_TOKEN_PATH" "$(dirname "$RAY_AUTH_TOKEN_PATH")" | xargs)
for word in "$@"; do [[ $word != --temp-dir=* ]] || modes="$modes $(stat -c %a "$(dirname "${word#*=}")")"; done
echo "ray $* $RAY_AUTH_MODE $modes" >> "$CALLS"
[[ $1 == health-check ]] || exec sleep 60
grep -q -- --head "$CALLS"  # healthy once the head has started
""",
    # the driver saves its checkpoint on SIGTERM and ends as a stopped job does; waiting for nodes takes no time
    "python": """
if [[ $1 == -m ]]; then
    echo "driver $*" >> "$CALLS"
    trap 'echo saved >> "$CALLS"; exit 130' TERM
    for _ in {1..200}; do [[ -e $DRIVER_ENDS ]] && exit "$(cat "$DRIVER_ENDS")"; sleep 0.1; done
elif [[ $1 == - ]]; then
    echo "wait $2 $3" >> "$CALLS"
else
    exec "$REAL_PYTHON" "$@"
fi
""",
}


@pytest.fixture
def slurm_job(tmp_path: Path) -> subprocess.Popen:
    """The script, started with two arguments; ends with the content of `driver-ends`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in STAND_INS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "home").mkdir()
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "CALLS": str(tmp_path / "calls"),
        "DRIVER_ENDS": str(tmp_path / "driver-ends"),
        "REAL_PYTHON": sys.executable,
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_CPUS_PER_TASK": "16",
    }
    command = ["bash", str(SCRIPT), "jobs/demo.yaml", "--set", "workers.count=3"]
    job = subprocess.Popen(command, env=environment, cwd=tmp_path, start_new_session=True)
    yield job
    if job.poll() is None:
        os.killpg(job.pid, signal.SIGKILL)
    job.wait()


def _calls(folder: Path, until: str) -> list[str]:
    """What was called, once a line that begins with `until` is there."""
    for _ in range(200):
        lines = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
        if any(line.startswith(until) for line in lines):
            return lines
        time.sleep(0.1)
    raise AssertionError(f"{until} was never called: {lines}")


def test_it_starts_ray_with_a_private_token_runs_the_driver_and_leaves_nothing(
    slurm_job: subprocess.Popen, tmp_path: Path
) -> None:
    calls = _calls(tmp_path, "driver")
    (tmp_path / "driver-ends").write_text("3")
    assert slurm_job.wait(timeout=20) == 3
    (head,) = (call for call in calls if "--head" in call)
    address = f"10.0.0.1:{head.partition('--port=')[2].split()[0]}"
    assert head.endswith("token 600 700 700")  # the token, its folder, the one around Ray's
    assert "--num-cpus=16" in head
    (workers,) = (call for call in _calls(tmp_path, "srun") if call.startswith("srun"))
    assert "--nodes=2 --ntasks=2" in workers
    assert re.search(r"--exclude=node1 bash -c .* (/tmp/lwddpm-7-\w{6}) ray start --block --temp-dir=\1/ray ", workers)
    assert workers.endswith(f"--address={address}")
    assert f"wait {address} 3" in calls
    (driver,) = (call for call in calls if call.startswith("driver"))
    assert driver.endswith(f"-m lwddpm run jobs/demo.yaml --set workers.count=3 --address {address}")
    assert not list(tmp_path.glob(".lwddpm-*"))
    assert not any("requeue" in call for call in _calls(tmp_path, "driver"))


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGTERM, False), (signal.SIGUSR1, True)])
def test_a_signal_lets_the_driver_save_and_only_the_time_limit_queues_again(
    slurm_job: subprocess.Popen, tmp_path: Path, number: signal.Signals, requeued: bool
) -> None:
    _calls(tmp_path, "driver")
    time.sleep(0.3)  # the driver's own handler
    slurm_job.send_signal(number)
    assert slurm_job.wait(timeout=20) == 130
    calls = _calls(tmp_path, "saved")
    assert ("scontrol requeue 7" in calls) == requeued


def test_it_is_valid_bash_and_says_how_it_is_used() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    ended = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.startswith("usage: sbatch")) == (2, True)


def test_shellcheck_finds_nothing() -> None:
    subprocess.run([str(Path(sys.executable).with_name("shellcheck")), str(SCRIPT)], check=True)
