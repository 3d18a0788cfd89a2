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
    [ -d "$bundle-60k" ] || python benchmarks/enlarge_kb.py "$bundle" 60000 "$bundle-60k"
    python benchmarks/texts_of_length.py "$bundle" "$data/banking77" 20 28 > "$work/24-tokens.txt"
    reaugkd bench "$bundle" --data "$data/banking77" --seconds 30 --json "$out/bench-$layers-layers.json"
    reaugkd bench "$bundle-60k" --data "$work/24-tokens.txt" --seconds 30 --json "$out/bench-$layers-layers-60k.json"
done
python -m reaugkd.benchmarks.sweep "$work/3-layers" --tokens 12,24,64 --rows 10000,60000,1000000 --data "$data/banking77" --seconds 40 \
    --json "$out/sweep.json" --plot "$out/sweep.svg"
# Started as users start it: from an environment that `pip install .` made.
if [ ! -x "$work/.venv/bin/reaugkd" ]; then
    python -m venv "$work/.venv"
    "$work/.venv/bin/pip" install --quiet -c constraints.txt .
fi
for bundle in 3-layers 3-layers-60k; do
    "$work/.venv/bin/reaugkd" bench "$work/$bundle" --data "$work/24-tokens.txt" --seconds 1 --processes 15 \
        --json "$out/start-$bundle.json"
done
[ -d "$work/float32" ] || reaugkd export "$run3" --out "$work/float32" --quantization none
python benchmarks/int8.py "$work/3-layers" "$work/float32" "$work/24-tokens.txt" > "$out/int8.txt"
python benchmarks/budget.py "$work/3-layers" "$data/banking77" > "$out/budget.txt"
sed -i "s#$data/#DATA/#; s#$work/#WORK/#" "$out"/*.json
