"""Fuse a bundle and ask it from Python, from Node and from WebAssembly: do all give the same answers?

python examples/fused/compare.py BUNDLE [MAX_ROWS]

Needs reaugkd with the train extra, node and npm; fetches three npm packages into this folder at the first call.
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

Answers = list[dict[str, Any]]


def main(bundle: Path, max_rows: int = MAX_ROWS) -> None:
    """Print for each way to ask how far its answers are from those of plain Python."""
    if not (HERE / "node_modules").is_dir():
        subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=HERE, check=True, stdout=sys.stderr)
    with tempfile.TemporaryDirectory() as folder, Runtime.open(bundle) as runtime:
        model, student = Path(folder) / "model.onnx", bundle.resolve() / "student"
        fused = fuse(bundle, model, max_rows)
        asked = texts(runtime)
        ways = {
            "Python, onnxruntime": [sys.executable, "classify.py", model, student / "tokenizer.json"],
            "Node, onnxruntime-node": ["node", "classify.mjs", model, student],
            "WebAssembly, onnxruntime-web": ["node", "classify.mjs", "--web", model, student],
        }
        answers = {way: ask(command, asked) for way, command in ways.items()}
        answers["the bundle itself"] = [record(runtime, text) for text in asked]
    plain = answers["Python, onnxruntime"]
    lines = [
        f"{fused.bytes / 1e6:.1f} MB, {fused.rows:,} rows inside, {len(asked)} texts; probabilities against Python's",
        f"{'':30}{'same neighbours':>16}  other neighbours  differences  other labels",
        *(f"{way:30}{differences(plain, found)}" for way, found in answers.items()),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def texts(runtime: Runtime) -> list[Any]:
    """The golden texts, some of the knowledge base's, and those tenfold, so that they are cut."""
    kb = runtime.knowledge_base
    rows = np.linspace(0, len(kb) - 1, min(ROWS, len(kb))).astype(int)
    found: list[Any] = [golden.text for golden in runtime.manifest.golden]
    found += [text for row in rows if (text := kb.text(int(row))) is not None]
    return found + [longer(text) for text in found[::10]]


def longer(text: Any) -> Any:
    """A text ten times; of a pair the first one ten times, the second one twice."""
    return " ".join([text] * 10) if isinstance(text, str) else [" ".join([text[0]] * 10), " ".join([text[1]] * 2)]


def ask(command: list[Any], asked: list[Any]) -> Answers:
    """What a program of this folder says to the texts."""
    lines = "".join(json.dumps(text) + "\n" for text in asked)
    done = subprocess.run(
        list(map(str, command)), cwd=HERE, input=lines, stdout=subprocess.PIPE, check=True, encoding="utf-8"
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def record(runtime: Runtime, text: Any) -> dict[str, Any]:
    """What the bundle says, in the fused model's words."""
    answer = runtime.predict(text)
    return {
        "label": answer.label,
        "probabilities": answer.probabilities.tolist(),
        "neighbour_rows": [one.row for one in answer.neighbours],
    }


def differences(plain: Answers, found: Answers) -> str:
    """How far the probabilities are apart, where the neighbours are the same and where they are not."""
    apart: dict[bool, list[float]] = {True: [0.0], False: [0.0]}
    labels = 0
    for one, other in zip(plain, found, strict=True):
        same = set(one["neighbour_rows"]) == set(other["neighbour_rows"])
        apart[same].append(float(np.abs(np.subtract(one["probabilities"], other["probabilities"])).max()))
        labels += one["label"] != other["label"]
    return f"{max(apart[True]):16.1e}  {len(apart[False]) - 1:16}  {max(apart[False]):11.1e}  {labels:12}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
