#!/usr/bin/env bash
# What one GPU does at 128x128 in at most 12 minutes (tracks F and G of docs/records.md): first things first, resumable.
#
#     benchmarks/gpu_records.sh SOURCE [STATE]
#
# SOURCE is the folder of the real images, or `phantom`; STATE (default: gpu-records) keeps the dataset, the runs and one
# JSON file for each stage that is done. A second call goes on where the first ended: bring STATE along where the machine
# has changed. A stage does not begin with less time left than it needs, so set BUDGET_S to what a call may take.
#
#     prepare     the dataset, as jobs/paper.yaml has it
#     rate-best   images/s of training jobs/best.yaml
#     long        fd_lite0 after 387 seconds of it (track F: 30; jobs/paper.yaml has 74.8 then)
#     rate-paper  images/s of training jobs/paper.yaml, batch 32 (track G: 2,700; was 1,413)
#     draw        image-steps/s of the paper's network, float32 against bf16 compiled (track G: 8,000; was 2,526)
#     short       fd_lite0 after 40 seconds of jobs/best.yaml (track F: 74.8)
#     short-next  the same after half as many, or twice as many if it was more than 74.8
#
# Seconds of training are steps x batch / rate, with the measured rate: neither compiling nor evaluating counts.
#
# No GPU has run this script yet. It was exercised from end to end on a CPU, in about two minutes:
#
#     DEVICE=cpu SIZE=32 LONG_S=2 SHORT_S=1 RATE_STEPS=4 EXTRA='model.dim=16 training.batch_size=4' \
#         benchmarks/gpu_records.sh phantom /tmp/state
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source=${1:?"the folder of the real images, or phantom"}
state=${2:-gpu-records}
PYTHON=${PYTHON:-python}
BUDGET_S=${BUDGET_S:-600}     # of this call
DEVICE=${DEVICE:-cuda}
SIZE=${SIZE:-128}
LONG_S=${LONG_S:-387}
SHORT_S=${SHORT_S:-40}
RATE_STEPS=${RATE_STEPS:-300}
DRAW=${DRAW:---batch-size 64 --steps 20 --rounds 3 --compile}
EXTRA=${EXTRA:-}              # further settings of the jobs, KEY=VALUE separated by spaces

mkdir -p "$state"
state=$(cd "$state" && pwd)
cd "$here"
export PYTHONPATH=$here/platform:$here/dashboards${PYTHONPATH:+:$PYTHONPATH}
export MLFLOW_TRACKING_URI=sqlite:///$state/mlflow.db
[[ $source == phantom ]] || source=$(cd "$source" && pwd)

common=(--set "data.source=$source" --set "data.path=$state/dataset" --set "data.image_size=$SIZE")
extra=()
for setting in $EXTRA; do extra+=(--set "$setting"); done
use_gpu=$([[ $DEVICE == cuda ]] && echo true || echo false)

# begins NAME NEEDED_S: whether a stage is still to be done and there is time for it
begins() {
    [[ -s $state/$1.json ]] && return 1
    if ((BUDGET_S - SECONDS < $2)); then
        echo "$1: needs $2 s, $((BUDGET_S - SECONDS)) s are left; call again with the same STATE" >&2
        exit 3
    fi
    echo "$1 (after $SECONDS s)" >&2
}

# keeps NAME COMMAND...: what it prints, under its name only when it has succeeded
keeps() {
    local name=$1
    shift
    "$@" >"$state/$name.part"
    mv "$state/$name.part" "$state/$name.json"
}

# steps SECONDS: optimizer steps of best.yaml in so many seconds of training
steps() {
    "$PYTHON" - "$state/rate-best.json" "$1" <<'PYTHON'
import json, sys
rate = json.load(open(sys.argv[1]))
print(max(2, round(float(sys.argv[2]) * rate["images_per_s"] / rate["batch_size"])))
PYTHON
}

# trains NAME SECONDS: best.yaml for so long, evaluated; the warm-up shortens with it
trains() {
    local count
    count=$(steps "$2")
    keeps "$1" "$PYTHON" -m lwddpm run jobs/best.yaml "${common[@]}" "${extra[@]}" --set "name=gpu-$1" --set "output=$state/runs" \
        --set "training.max_steps=$count" --set "training.warmup_steps=$((count < 2000 ? count / 10 : 200))" \
        --set "training.snapshot_epochs=[]" --set "evaluation.metrics=[fd_lite0]" --set "workers.use_gpu=$use_gpu" \
        --set registry=null --json
}

# value NAME: fd_lite0 of a training
value() { "$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["metrics"]["eval/fd_lite0"])' "$state/$1.json"; }

if begins prepare 60; then
    keeps prepare "$PYTHON" -m lwddpm run jobs/prepare.yaml "${common[@]}" --set data.fit=stretch --json
fi
if begins rate-best 60; then
    keeps rate-best "$PYTHON" benchmarks/job_rate.py jobs/best.yaml "${common[@]}" "${extra[@]}" --steps "$RATE_STEPS" \
        --device "$DEVICE" --json
fi
if begins long "$((LONG_S + 100))"; then trains long "$LONG_S"; fi
if begins rate-paper 90; then
    keeps rate-paper "$PYTHON" benchmarks/job_rate.py jobs/paper.yaml "${common[@]}" "${extra[@]}" \
        --steps "$RATE_STEPS" --device "$DEVICE" --json
fi
if begins draw 90; then
    read -ra options <<<"$DRAW"
    keeps draw "$PYTHON" benchmarks/drawing_speed.py "${options[@]}" --device "$DEVICE" --json
fi
if begins short "$((SHORT_S + 60))"; then trains short "$SHORT_S"; fi
next=$("$PYTHON" -c 'import sys; met, s = float(sys.argv[1]) <= 74.8, float(sys.argv[2]); print(s / 2 if met else 2 * s)' \
    "$(value short)" "$SHORT_S")
if begins short-next "$((SHORT_S * 2 + 60))"; then trains short-next "$next"; fi

"$PYTHON" - "$state" "$LONG_S" "$SHORT_S" "$next" <<'PYTHON'
import json, pathlib, sys
state, long_s, short_s, next_s = pathlib.Path(sys.argv[1]), *map(float, sys.argv[2:])
read = {path.stem: json.loads(path.read_text()) for path in state.glob("*.json")}
print(f"GPU: {read['rate-best']['device']}\n\n| what | measured | wanted |\n|---|---:|---:|")
for name, seconds, wanted in (("long", long_s, "30"), ("short", short_s, "74.8"), ("short-next", next_s, "74.8")):
    metrics = read[name]["metrics"]
    floor = metrics.get("eval/fd_lite0_floor")
    print(f"| fd_lite0 after {seconds:g} s of best (floor {floor:.1f}) | {metrics['eval/fd_lite0']:.1f} | {wanted} |")
for name, wanted in (("rate-best", ""), ("rate-paper", "2,700")):
    rate = read[name]
    print(f"| images/s of {rate['job']} at batch {rate['batch_size']} | {rate['images_per_s']:,.0f} | {wanted} |")
for name, wanted in (("fp32", ""), ("auto", "8,000")):
    print(f"| image-steps/s of the paper's network, {name} | {read['draw']['image_steps_per_s'][name]:,.0f} | {wanted} |")
PYTHON
