"""A driver whose jobs export: two-worker trainings, a search and an evaluation on a head of its own.

Arguments: folder for Ray's session; a JSON list of jobs, [name, overrides] each. Prints the jobs' results as JSON.
"""

import json
import sys
import time

import ray
from ray.util.metrics import Gauge

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.jobfile import load_job
from lwddpm.kinds.jobs import run_job

GPU = "GPU-00000000-0000-0000-0000-000000000000"


def main(temp_dir: str, jobs: str) -> None:
    context = ray.init(
        address="local", num_cpus=2, include_dashboard=True, dashboard_port=0, log_to_driver=False, _temp_dir=temp_dir
    )
    address = context.address_info["gcs_address"]
    # The one thing that is simulated: a GPU, as Ray's agent reads it, and a worker that says that it computes on it.
    readings = [Gauge(name, tag_keys=("GpuUuid",)) for name in ("node_gpus_utilization", "node_gram_used")]
    with ExportedSeries("on-a-gpu", "0123456789abcdef") as on_a_gpu:
        on_a_gpu.worker_started(0, 1, None, GPU, {"GPU": 1.0})
        results = [run_job(load_job(name, overrides), address=address) for name, overrides in json.loads(jobs)]
        for _ in range(4):
            for gauge in readings:
                gauge.set(50, tags={"GpuUuid": GPU})
            time.sleep(1)
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
