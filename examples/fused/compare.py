"""Fuse a bundle, and compare its predictions in Python, Node and WebAssembly with those of the bundle.

python examples/fused/compare.py BUNDLE [MAX_ROWS]

It needs reaugkd with the train extra, node and npm. The first call installs three npm packages into this folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from reaugkd import Runtime
from reaugkd.export.onnx.fuse import MAX_ROWS, fuse

HERE = Path(__file__).resolve().parent
ROWS = 200

Predictions = list[dict[str, Any]]


def main(bundle: Path, max_rows: int = MAX_ROWS) -> None:
    """Print how much the predictions of each way differ from those in Python."""
    if not (HERE / "node_modules").is_dir():
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=HERE, check=True, stdout=sys.stderr
        )
    with tempfile.TemporaryDirectory() as folder, Runtime.open(bundle) as runtime:
        model, student = Path(folder) / "model.onnx", bundle.resolve() / "student"
        fused = fuse(bundle, model, max_rows)
        inputs = texts(runtime)
        ways = {
            "Python, onnxruntime": [sys.executable, "classify.py", model, student / "tokenizer.json"],
            "Node, onnxruntime-node": ["node", "classify.mjs", model, student],
            "WebAssembly, onnxruntime-web": ["node", "classify.mjs", "--web", model, student],
        }
        predictions = {way: predict(command, inputs) for way, command in ways.items()}
        predictions["the bundle itself"] = [record(runtime, text) for text in inputs]
    plain = predictions["Python, onnxruntime"]
    lines = [
        f"{fused.bytes / 1e6:.1f} MB, {fused.rows:,} rows inside, {len(inputs)} texts; probabilities against Python's",
        f"{'':30}{'same neighbours':>16}  other neighbours  differences  other labels",
        *(f"{way:30}{differences(plain, found)}" for way, found in predictions.items()),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def texts(runtime: Runtime) -> list[Any]:
    """Return the golden texts, some of the knowledge base, and ten times longer ones, which are truncated."""
    kb = runtime.knowledge_base
    rows = np.linspace(0, len(kb) - 1, min(ROWS, len(kb))).astype(int)
    found: list[Any] = [golden.text for golden in runtime.manifest.golden]
    found += [text for row in rows if (text := kb.text(int(row))) is not None]
    return found + [longer(text) for text in found[::10]]


def longer(text: Any) -> Any:
    """Repeat a text ten times; of a pair the first text ten times and the second text twice."""
    return " ".join([text] * 10) if isinstance(text, str) else [" ".join([text[0]] * 10), " ".join([text[1]] * 2)]


def predict(command: list[Any], inputs: list[Any]) -> Predictions:
    """Run a program of this folder on the texts, and return its predictions."""
    lines = "".join(json.dumps(text) + "\n" for text in inputs)
    done = subprocess.run(
        list(map(str, command)), cwd=HERE, input=lines, stdout=subprocess.PIPE, check=True, encoding="utf-8"
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def record(runtime: Runtime, text: Any) -> dict[str, Any]:
    """Return the prediction of the bundle, with the names of the fused model's outputs."""
    answer = runtime.predict(text)
    return {
        "label": answer.label,
        "probabilities": answer.probabilities.tolist(),
        "neighbour_rows": [one.row for one in answer.neighbours],
    }


def differences(plain: Predictions, found: Predictions) -> str:
    """Describe the largest differences of the probabilities, with the same and with other neighbours."""
    apart: dict[bool, list[float]] = {True: [0.0], False: [0.0]}
    labels = 0
    for one, other in zip(plain, found, strict=True):
        same = set(one["neighbour_rows"]) == set(other["neighbour_rows"])
        apart[same].append(float(np.abs(np.subtract(one["probabilities"], other["probabilities"])).max()))
        labels += one["label"] != other["label"]
    return f"{max(apart[True]):16.1e}  {len(apart[False]) - 1:16}  {max(apart[False]):11.1e}  {labels:12}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
