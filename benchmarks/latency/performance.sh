#!/usr/bin/env bash
# The targets' figures of docs/reference/performance.md, into WORK/figures; nothing else should run meanwhile.
#   benchmarks/latency/performance.sh DATA RUN3 RUN6 WORK
# RUN3, RUN6: finished `reaugkd train`s of banking77 with three and six layers. Paths must be absolute, and reaugkd and its
# python first in PATH. The peers have a command of their own, benchmarks/peers/run.sh.
set -euo pipefail
data=$1 run3=$2 run6=$3 work=$4
cd "$(dirname "$0")/../.."
out=$work/figures
mkdir -p "$out"

declare -A run=([3]=$run3 [6]=$run6)
for layers in 3 6; do
    bundle=$work/$layers-layers
    [ -d "$bundle" ] || reaugkd export "${run[$layers]}" --out "$bundle"
    [ -d "$work/$layers-2048" ] || reaugkd condense "$bundle" --out "$work/$layers-2048" --max-rows 2048
    [ -d "$work/$layers-4096" ] || python benchmarks/latency/enlarge_kb.py "$bundle" 4096 "$work/$layers-4096"
done
for rows in 60000 1000000; do
    [ -d "$work/3-$rows" ] || python benchmarks/latency/enlarge_kb.py "$work/3-layers" $rows "$work/3-$rows"
done
python benchmarks/latency/overhead.py "$data/banking77" "$work"/{3-2048,3-4096,3-60000,3-1000000,6-2048,6-4096} > "$out/overhead.txt"
# Started as users start it: from an environment that `pip install .` made.
if [ ! -x "$work/.venv/bin/reaugkd" ]; then
    python -m venv "$work/.venv"
    "$work/.venv/bin/pip" install --quiet -c constraints.txt .
fi
for bundle in 3-2048 3-60000; do
    rm -f "$out/start-$bundle.json"
    "$work/.venv/bin/reaugkd" bench "$work/$bundle" --data "$data/banking77" --seconds 1 --processes 15 --json "$out/start-$bundle.json"
done
