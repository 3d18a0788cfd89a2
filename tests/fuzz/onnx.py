"""Fuzz the bytes of a model for the safety check and its readers: only errors of the package, in bounded time."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from reaugkd.errors import ReaugkdError
from reaugkd.runtime.bundle.onnx_safety import operator_sets, output_names, read_onnx_file

from .common import rewrite, scratch


@cache
def _file() -> Path:
    return scratch() / "model.onnx"


def _field(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


@cache
def seeds() -> list[bytes]:
    """Return a graph of a node, a tensor and an output; one with nested external data; one with a loop."""
    tensor, far = _field(9, b"data"), bytes([14 << 3, 1])
    node = _field(4, b"Gather") + _field(5, _field(5, tensor))
    deep = _field(5, _field(6, _field(1, _field(5, _field(10, far)))))
    graphs = (
        _field(1, node) + _field(5, tensor) + _field(12, _field(1, b"logits")),
        _field(1, deep),
        _field(1, _field(4, b"Loop")),
    )
    operators = _field(8, _field(1, b"ai.onnx.ml") + b"\x10\x01")
    return [b"\x08\x08" + operators + _field(7, graph) for graph in graphs]


def check(data: bytes) -> None:
    """Raise an error if the input breaks a promise."""
    rewrite(_file(), data)
    try:
        model = read_onnx_file(_file())
    except ReaugkdError:
        return
    output_names(model)
    operator_sets(model)
