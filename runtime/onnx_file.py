"""A look inside an ONNX file without the onnx library: does it ask for other files?

A model may keep tensors as external data, a path relative to the file or, for an evil one, anywhere. A bundle's model
is one file; anything else is refused before ONNX Runtime opens it. Only the structure of the protocol buffer is
walked, the weights are skipped over, so 20 MB take a few milliseconds.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ..errors import BundleError, BundleIntegrityError

# Field numbers of onnx.proto: message -> field -> message, for every way that leads to a TensorProto.
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
}
_ELSEWHERE = (13, 14)  # TensorProto's external_data, and data_location where it is not 0
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def refuse_external_data(path: Path) -> None:
    """Raise if the model's tensors are not all inside the file.

    Raises:
        BundleError: a tensor lies in another file.
        BundleIntegrityError: this is no protocol buffer.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise _broken(path)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                external = _has_external(data)
            except (IndexError, ValueError) as error:
                raise _broken(path) from error
    if external:
        raise BundleError(
            "the model keeps tensors in other files",
            path=path,
            found="external data",
            expected="a model in one file",
            remedy="Export the bundle again.",
        )


def _has_external(data: mmap.mmap) -> bool:
    waiting = [("Model", 0, len(data))]
    while waiting:
        message, start, stop = waiting.pop()
        if message == "Tensor":
            if any(number in _ELSEWHERE and value for number, value in _fields(data, start, stop)):
                return True
            continue
        children = _CHILDREN[message]
        waiting += [
            (children[number], *span)
            for number, span in _fields(data, start, stop)
            if number in children and isinstance(span, tuple)
        ]
    return False


def _fields(data: mmap.mmap, at: int, stop: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """The (number, value) pairs of one message: a number's value, or where the bytes of a field begin and end."""
    while at < stop:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif wire == _BYTES:
            size, at = _varint(data, at)
            yield number, (at, at + size)
            at += size
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
    if at != stop:
        raise ValueError("a field runs over the end")


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number runs over 64 bits")


def _broken(path: Path) -> BundleIntegrityError:
    return BundleIntegrityError(
        "the model cannot be read", path=path, expected="an ONNX model", remedy="Export the bundle again."
    )
