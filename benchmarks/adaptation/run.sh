#!/usr/bin/env bash
# reaugkd beside other systems that learn in the field: the same stream for all. Nothing else should run meanwhile.
#   python benchmarks/adaptation/stream.py DATA TASK SEED FILES
#   reaugkd train --data FILES --teacher ENCODER --student-layers 0,2,4 --recipe recipes/general.toml \
#       --embedding-dim 256 --seed SEED --out RUN
#   reaugkd export RUN --out BUNDLE
#   benchmarks/adaptation/run.sh DATA TASK SEED ENCODER BUNDLE OUT DOCS [GROUP]
# DATA: a folder with TASK (banking77 or clinc150) as distributed. ENCODER: all-MiniLM-L6-v2. Paths must be absolute.
# OUT gets an environment of its own, what every system saves and each replay, so the same command resumes. DOCS gets
# TASK.json, TASK.md and TASK.svg. GROUP (1): how many rows are told at a time to systems that train before a change
# returns.
set -euo pipefail
data=$1 task=$2 seed=$3 encoder=$4 bundle=$5 out=$6 docs=$7 group=${8:-1}
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out"
if [ ! -f "$out/.venv/installed" ]; then
    python3.11 -m venv "$out/.venv"
    "$out/.venv/bin/pip" install --quiet -c "$root/constraints-optimum.txt" \
        -r "$root/benchmarks/adaptation/requirements.txt" --editable "$root[plots]"
    touch "$out/.venv/installed"
fi
export OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
cd "$root/benchmarks/adaptation"
python="$out/.venv/bin/python" work="$out/$task-$seed"
"$python" prepare.py "$data" "$task" "$seed" "$encoder" "$bundle" "$work"
"$python" -c 'from prepare import SYSTEMS; print(*SYSTEMS, sep="\n")' | while read -r system; do
    "$python" replay.py "$data" "$task" "$seed" "$work" "$system" "$group"
done
"$python" costs.py "$data" "$task" "$seed" "$work"
"$python" report.py "$data" "$task" "$seed" "$work" "$docs"
