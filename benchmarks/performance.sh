#!/usr/bin/env bash
# The figures of docs/reference/performance.md, into docs/results/performance; nothing else should run meanwhile.
#   benchmarks/performance.sh DATA RUN3 RUN6 WORK
# RUN3, RUN6: finished `reaugkd train`s of banking77 with three and six layers. Paths must be absolute, and reaugkd and its
# python first in PATH. The peers have a command of their own, benchmarks/peers/run.sh.
set -euo pipefail
data=$1 run3=$2 run6=$3 work=$4
cd "$(dirname "$0")/.."
out=docs/results/performance
mkdir -p "$out" "$work"

declare -A run=([3]=$run3 [6]=$run6)
for layers in 3 6; do
    bundle=$work/$layers-layers
    [ -d "$bundle" ] || reaugkd export "${run[$layers]}" --out "$bundle"
    [ -d "$work/$layers-2048" ] || reaugkd condense "$bundle" --out "$work/$layers-2048" --max-rows 2048
    [ -d "$work/$layers-4096" ] || python benchmarks/enlarge_kb.py "$bundle" 4096 "$work/$layers-4096"
done
for rows in 60000 1000000; do
    [ -d "$work/3-$rows" ] || python benchmarks/enlarge_kb.py "$work/3-layers" $rows "$work/3-$rows"
done
python benchmarks/overhead.py "$data/banking77" "$work"/{3-2048,3-4096,3-60000,3-1000000,6-2048,6-4096} > "$out/overhead.txt"
# Started as users start it: from an environment that `pip install .` made.
if [ ! -x "$work/.venv/bin/reaugkd" ]; then
    python -m venv "$work/.venv"
    "$work/.venv/bin/pip" install --quiet -c constraints.txt .
fi
for bundle in 3-2048 3-60000; do
    "$work/.venv/bin/reaugkd" bench "$work/$bundle" --data "$data/banking77" --seconds 1 --processes 15 --json "$work/start.json"
    sed "s#$data/#DATA/#; s#$work/#WORK/#" "$work/start.json" > "$out/start-$bundle.json"
    rm "$work/start.json"
done
python -m reaugkd.benchmarks.sweep "$work/3-layers" --tokens 12,24,64 --rows 10000,60000,1000000 --data "$data/banking77" --seconds 40 \
    --json "$work/sweep.json"
sed "s#$data/#DATA/#; s#$work/#WORK/#" "$work/sweep.json" > "$out/sweep.json"
python benchmarks/budget.py "$work/3-layers" "$data/banking77" > "$out/budget.txt"
