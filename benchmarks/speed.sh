#!/usr/bin/env bash
# Training speed, of docs/reference/results.md; nothing else should run meanwhile.
#   benchmarks/speed.sh DATA TEACHER WORK
# WORK: any folder. Paths must be absolute, and reaugkd in PATH.
set -euo pipefail
data=$1 teacher=$2 work=$3
cd "$(dirname "$0")/.."

run=$work/banking77-layers-0,5
rm -rf "$run" "$run.bundle"
begun=$SECONDS
reaugkd train --data "$data/banking77" --teacher "$teacher" --student-layers 0,5 --out "$run"
reaugkd export "$run" --out "$run.bundle"
echo "banking77, layers 0,5: trained, tuned and exported in $((SECONDS - begun)) s"
