#!/usr/bin/env bash
# reaugkd beside what people use today: same data, same machine, taking turns. Nothing else should run meanwhile.
#   benchmarks/peers/run.sh DATA TASK TEACHER RUN OUT
# RUN: a finished `reaugkd train` of the task, whose teacher was fine-tuned from TEACHER. Paths must be absolute.
# OUT gets an environment of its own, every peer's files, and TASK.json, TASK.md, TASK.svg.
set -euo pipefail
data=$1 task=$2 teacher=$3 run=$4 out=$5
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out"
if [ ! -f "$out/.venv/installed" ]; then
    python3.11 -m venv "$out/.venv"
    "$out/.venv/bin/pip" install --quiet -c "$root/constraints-optimum.txt" -r "$root/benchmarks/peers/requirements.txt" \
        --editable "$root[train-optimum,plots]"
    touch "$out/.venv/installed"
fi
export OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
cd "$root/benchmarks/peers"
"$out/.venv/bin/python" build.py "$teacher" "$run" "$out/$task"
"$out/.venv/bin/python" measure.py "$data/$task" "$out/$task" "$out/$task"
