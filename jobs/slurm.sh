#!/usr/bin/env bash
# A Ray cluster for the length of a Slurm job, and one job of the platform on it.
#
# command   sbatch jobs/slurm.sh jobs/paper.yaml --set data.source=PATH --set workers.count=2 --set workers.use_gpu=true
# from      a folder that all nodes mount, with the environment activated (. .venv/bin/activate)
# private   ~/.lwddpm/environment, mode 0600: export lines, such as MLFLOW_TRACKING_URI and its user name and password
# expect    before the time limit the training saves a checkpoint and the job is queued again, to go on from there;
#           scancel --batch --signal=TERM JOBID saves a checkpoint and ends it
#
# Whole nodes: Ray listens on all interfaces, and its metrics ports ask for no token.
#SBATCH --job-name=lwddpm
#SBATCH --nodes=2
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

if (($# == 0)); then
    echo "usage: sbatch [options of sbatch] $0 JOB [--set KEY=VALUE ...]" >&2
    exit 2
fi
if [[ -r ~/.lwddpm/environment ]]; then
    # shellcheck source=/dev/null
    . ~/.lwddpm/environment
fi

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]} # where this script runs
head_ip=$(getent ahostsv4 "$head" | awk '$1 !~ /^127\./ { print $1; exit }')
port=$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
address=$head_ip:$port

# A folder that this user alone can enter, on every node: for the token of this cluster.
private=$(mktemp --directory "$SLURM_SUBMIT_DIR/.lwddpm-$SLURM_JOB_ID.XXXXXX")
python -c 'import secrets; print(secrets.token_hex(32), end="")' | install -m 600 /dev/stdin "$private/token"
# On every node, with a name that nobody can have taken. Short, since Ray's sockets lie there; Ray lets everybody write to
# its folder, so it lies in one that this user alone can enter.
temporary=/tmp/lwddpm-$SLURM_JOB_ID-${private##*.}
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/token RAY_USAGE_STATS_ENABLED=0

driver=""
again=""
# shellcheck disable=SC2329  # called by the traps
clean_up() {
    local started
    mapfile -t started < <(jobs -p)
    ((${#started[@]} == 0)) || kill "${started[@]}" 2>/dev/null || true
    wait
    rm -rf "$private" "$temporary"
}
# shellcheck disable=SC2329
stop_driver() { [[ -z $driver ]] || kill -TERM "$driver" 2>/dev/null || true; }
trap clean_up EXIT
trap stop_driver TERM
trap 'again=yes; stop_driver' USR1

# shellcheck disable=SC2016  # expanded on the node
start=(bash -c 'mkdir -m 700 "$0" && exec "$@"' "$temporary"
    ray start --block --temp-dir="$temporary/ray" --num-cpus="${SLURM_CPUS_PER_TASK:-1}")
"${start[@]}" --head --node-ip-address="$head_ip" --port="$port" --include-dashboard=false &
for _ in {1..60}; do
    if ray health-check --address "$address" >/dev/null 2>&1; then break; fi
    sleep 2
done
others=$((${#nodes[@]} - 1))
if ((others > 0)); then
    srun --nodes="$others" --ntasks="$others" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
        --exclude="$head" "${start[@]}" --address="$address" &
fi
python - "$address" "${#nodes[@]}" <<'WAIT'
import sys
import time

import ray

address, wanted = sys.argv[1], int(sys.argv[2])
ray.init(address=address, logging_level="ERROR", log_to_driver=False)
deadline = time.monotonic() + 300
while (joined := sum(node["Alive"] for node in ray.nodes())) < wanted:
    if time.monotonic() > deadline:
        sys.exit(f"{joined} of {wanted} nodes have joined Ray within 5 minutes; see the output of the others above")
    time.sleep(2)
WAIT

python -m lwddpm run "$@" --address "$address" &
driver=$!
status=0
wait "$driver" || status=$?
while kill -0 "$driver" 2>/dev/null; do # a signal ended the wait: the driver is saving its checkpoint
    status=0
    wait "$driver" || status=$?
done
driver=""
if [[ $again == yes && $status -ne 0 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
