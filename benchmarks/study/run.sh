#!/usr/bin/env bash
# Run the studies of docs/reference/results.md and docs/explanation/lab-book.md again.
#   benchmarks/study/run.sh DATA TEACHER WORK [STUDY...]
# DATA: the folder of the data sets banking77, clinc150, CoLA, MRPC, RTE and SST-2. TEACHER: the folder of all-MiniLM-L6-v2.
# WORK: any folder; a stopped call continues there. STUDY: names of benchmarks/study/*.toml; the default is all of them.
# Paths must be absolute, and reaugkd in PATH. The cells of all studies took 25 hours in sum.
#
# `reaugkd study` writes each cell (task, recipe, seed) with its answers to every row into WORK/STUDY/cells, and aggregates
# the cells into results.parquet (a row of metrics for each cell and system) and report.md. The cells take 25 MB.
set -euo pipefail
data=$1 teacher=$2 work=$3
shift 3
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- $(basename -s .toml benchmarks/study/*.toml)

for name in "$@"; do
    model=$teacher
    if [[ $name == domain_shift_* ]]; then # its teacher is fine-tuned on all train rows
        task=${name#domain_shift_}
        reaugkd train --data "$data/$task" --teacher "$teacher" --out "$work/$task"
        model=$work/$task/teacher
    fi
    reaugkd study "benchmarks/study/$name.toml" --data "$data" --teacher "$model" --out "$work/$name"
done
