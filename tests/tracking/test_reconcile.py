import os
import subprocess
import sys

import psutil

from lwddpm.tracking.reconcile import close_dead_runs, identity
from lwddpm.tracking.store import connect


def test_only_runs_of_dead_processes_of_this_machine_are_closed(store: str) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    started = psutil.Process(gone.pid).create_time()
    gone.wait()
    processes = {
        "dead": identity() | {"lwddpm.process": f"{gone.pid}@{started:.0f}"},
        "its number belongs to another now": identity() | {"lwddpm.process": f"{os.getpid()}@{started - 3600:.0f}"},
        "alive": identity(),
        "elsewhere": identity() | {"lwddpm.process": f"{gone.pid}@{started:.0f}", "lwddpm.machine": "another"},
        "not ours": {},
    }
    client = connect(store)
    experiment = client.create_experiment("reconciled")
    runs = {name: client.create_run(experiment, tags=tags).info.run_id for name, tags in processes.items()}
    runs["continued"] = client.create_run(experiment, tags=processes["dead"]).info.run_id
    closed = close_dead_runs(client, experiment, continued=runs.pop("continued"))
    assert sorted(closed) == sorted([runs["dead"], runs["its number belongs to another now"]])
    found = {name: client.get_run(run_id).info.status for name, run_id in runs.items()}
    assert found == dict.fromkeys(processes, "RUNNING") | dict.fromkeys(
        ["dead", "its number belongs to another now"], "KILLED"
    )
    assert len(close_dead_runs(client, experiment)) == 1
    assert close_dead_runs(client, experiment) == []
