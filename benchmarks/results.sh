#!/usr/bin/env bash
# The scores of docs/results.md: train, export and score each task, then make the tables.
#   benchmarks/results.sh DATA TEACHER WORK [SEEDS [TASKS]]   (absolute paths; reaugkd and its python first in PATH)
# DATA: the folder of banking77, SST-2, MRPC, RTE and CoLA; TEACHER: all-MiniLM-L6-v2; WORK: where runs and bundles go.
# Killed and called again, it goes on: finished runs, bundles and scores are kept.
set -euo pipefail
data=$1 teacher=$2 work=$3 seeds=${4:-0} tasks=${5:-"SST-2 banking77 MRPC CoLA RTE"}
cd "$(dirname "$0")/.."
results=docs/results
mkdir -p "$work" "$results"

for task in $tasks; do
  for seed in $seeds; do
    name=$task-seed$seed
    [ -e "$results/$name.json" ] && continue
    reaugkd train --data "$data/$task" --teacher "$teacher" --student-layers 0,2,5 --seed "$seed" --out "$work/$name"
    [ -e "$work/$name.bundle" ] || reaugkd export "$work/$name" --out "$work/$name.bundle"
    reaugkd eval "$work/$name.bundle" --data "$data/$task" --run "$work/$name" --json "$results/$name.json"
  done
done
python benchmarks/tables.py "$results"
