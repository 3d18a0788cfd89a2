#!/usr/bin/env bash
# Training speed and the overhead of retrieval, of docs/results.md; nothing else should run meanwhile.
#   benchmarks/speed.sh DATA TEACHER WORK
# WORK: that of results.sh, whose SST-2 bundle is measured. Paths must be absolute, and reaugkd in PATH.
set -euo pipefail
data=$1 teacher=$2 work=$3
cd "$(dirname "$0")/.."

run=$work/banking77-layers-0,5
rm -rf "$run" "$run.bundle"
begun=$SECONDS
reaugkd train --data "$data/banking77" --teacher "$teacher" --student-layers 0,5 --out "$run"
reaugkd export "$run" --out "$run.bundle"
echo "banking77, layers 0,5: trained, tuned and exported in $((SECONDS - begun)) s"

reaugkd bench "$work/SST-2-seed0.bundle" --data "$data/SST-2" --json docs/results/bench-SST-2.json
reaugkd bench "$work/banking77-seed0.bundle" --data "$data/banking77" --json docs/results/bench-banking77.json
