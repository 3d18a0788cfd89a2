"""Compare the torch exporter with optimum-onnx on one student: answers, nodes, bytes and latency, in turns.

    .venv-optimum/bin/python benchmarks/latency/exporters.py MODEL .venv/bin/python

MODEL is a sentence encoder such as all-MiniLM-L6-v2; layers 0, 2 and 5 make the student. The first environment has the
extra train-optimum, the second one the extra train: it exports with transformers 5. Exit code 1 if the answers differ.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import numpy as np
import onnx
import torch
import transformers

from reaugkd.export.modeling.checkpoint import load_encoder
from reaugkd.export.modeling.encoder import EncoderClassifier, HeadConfig
from reaugkd.export.modeling.execution.tokens import save_tokenizer
from reaugkd.export.modeling.layers import keep_layers
from reaugkd.export.onnx.attention_fusion import fuse_attention
from reaugkd.export.onnx.export import export_float32
from reaugkd.export.onnx.exporters import Exporter
from reaugkd.export.onnx.quantization import detect_target, quantize
from reaugkd.runtime.inference.session.student import StudentSession
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer

LABELS = [f"label {number}" for number in range(77)]
MAX_LENGTH, ROUNDS, LARGEST_DIFFERENCE, SLOWER = 128, 300, 1e-4, 1.02
WORDS = "please tell me why my card payment was declined twice at the cash machine and what i can do now".split()


def make_student(model: str, folder: Path) -> None:
    """Save a student with random heads, the same in every environment."""
    torch.manual_seed(0)
    encoder = keep_layers(load_encoder(model), (0, 2, 5))
    EncoderClassifier(encoder, HeadConfig(len(LABELS), embedding_dim=128)).save(folder)
    save_tokenizer(model, folder)


def write(student: Path, exporter: Exporter, out: Path) -> None:
    """Export a student, fuse its attention and quantize it: out/float32 and out/int8."""
    for name in ("float32", "int8"):
        (out / name).mkdir(parents=True)
    model = EncoderClassifier.load(student)
    float32 = export_float32(model, LABELS, MAX_LENGTH, out / "float32", exporter)
    fused = float32.with_name("fused.onnx")
    assert fuse_attention(float32, model.encoder.config, fused), "attention was not fused"
    quantize(fused, detect_target(), "dynamic", out / "int8")


def texts(count: int) -> list[str]:
    """Return random texts of 1 to 20 words."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 21))) for _ in range(count)]


def main(model: str, other_python: str) -> int:
    """Export three times, print the comparison and return the exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        student = folder / "student"
        make_student(model, student)
        write(student, "optimum", folder / "optimum")
        write(student, "torch", folder / "torch")
        command = [other_python, __file__, "write", str(student), str(folder / "torch, transformers 5")]
        subprocess.run(command, check=True)
        return compare(folder, student, ["torch", "torch, transformers 5"])


def compare(folder: Path, student: Path, systems: list[str]) -> int:
    """Print each system beside optimum-onnx, and return 1 if answers differ or a system is clearly slower."""
    tokenizer, failed = TextTokenizer(student / "tokenizer.json", MAX_LENGTH), 0
    encodings = [tokenizer.encode(text) for text in texts(400)]
    files = {name: folder / name / "int8" / "model.onnx" for name in ["optimum", *systems]}
    sessions = {name: StudentSession(path) for name, path in files.items()}
    logits = {name: np.array([one.run(item)[0] for item in encodings]) for name, one in sessions.items()}
    float32 = {name: StudentSession(folder / name / "float32" / "model.onnx") for name in files}
    exact = {name: np.array([one.run(item)[0] for item in encodings]) for name, one in float32.items()}
    milliseconds = in_turns(sessions, encodings)
    click.echo(f"transformers {transformers.__version__}; int8 {detect_target()}; 3 layers; 400 texts")
    click.echo("system | float32 logits differ by | int8 labels equal | nodes | bytes | ms | to optimum")
    for name, path in files.items():
        nodes = Counter(node.op_type for node in onnx.load(str(path)).graph.node)
        difference = float(np.abs(exact[name] - exact["optimum"]).max())
        agreement = float(np.mean(logits[name].argmax(1) == logits["optimum"].argmax(1)))
        ratio = float(np.median(milliseconds[name] / milliseconds["optimum"]))
        click.echo(
            f"{name} | {difference:.1e} | {agreement:.2%} | {sum(nodes.values())} ({nodes['QAttention']} QAttention) | "
            f"{path.stat().st_size:,} | {np.median(milliseconds[name]):.3f} | {ratio:.3f}"
        )
        failed |= difference > LARGEST_DIFFERENCE or agreement < 0.99 or ratio > SLOWER
    return int(failed)


def in_turns(sessions: dict[str, StudentSession], encodings: list) -> dict[str, np.ndarray]:
    """Return each session's time for a text of each round, in ms; sessions take turns in a changing order."""
    found = {name: np.empty(ROUNDS) for name in sessions}
    names = list(sessions)
    for number in range(ROUNDS):
        item = encodings[number % len(encodings)]
        for name in np.roll(names, number):
            times = []
            for _ in range(7):
                start = time.perf_counter()
                sessions[name].run(item)
                times.append(time.perf_counter() - start)
            found[name][number] = 1e3 * float(np.median(times))
    return found


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), "torch", Path(sys.argv[3]))
    else:
        sys.exit(main(sys.argv[1], sys.argv[2]))
