"""A look inside an ONNX file without the onnx library: does it ask for other files, or to run for ever?

A model may keep tensors as external data, a path relative to the file or, for an evil one, anywhere. A bundle's model
is one file; anything else is refused before ONNX Runtime opens it. So are loops, which no encoder has: one can run for
ever, and ONNX Runtime runs some as soon as it loads them. And so are functions that a model defines: thirty, each
calling the one before it twice, are a thousand million nodes once they are put in their places. Only the structure of
the protocol buffer is walked, the weights are skipped over, so 20 MB take a few milliseconds.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ...errors import BundleError, BundleIntegrityError

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
_OP_TYPE, _LOOPS, _LONGEST_NAME = 4, (b"Loop", b"Scan", b"SequenceMap"), 16
_EXTERNAL = "external data"
_NO_LOOP = ("the model has a loop", "an encoder without loops")
_REFUSED = {_EXTERNAL: ("the model keeps tensors in other files", "a model in one file")}
_REFUSED |= {name.decode(): _NO_LOOP for name in _LOOPS}
_FUNCTIONS = "functions"
_REFUSED[_FUNCTIONS] = ("the model defines operators of its own", "an encoder of the standard's operators")
_LARGEST = 2**31 - 1  # a protocol buffer is no larger
_MOST_FIELDS = 1_000_000  # an encoder of twelve layers has 20,000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_onnx_file(path: Path) -> None:
    """Raise if the model's tensors are not all inside the file, or there are loops in it.

    Raises:
        BundleError: a tensor lies in another file, or a node is a loop.
        BundleIntegrityError: this is no protocol buffer, or none of a model.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        if not 0 < size <= _LARGEST:
            raise _broken(path, f"{size:,} bytes")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                unwanted = _unwanted(data)
            except (IndexError, ValueError) as error:
                raise _broken(path, str(error)) from error
    if unwanted is not None:
        message, expected = _REFUSED[unwanted]
        raise BundleError(message, path=path, found=unwanted, expected=expected, remedy="Export the bundle again.")


def _unwanted(data: mmap.mmap) -> str | None:
    waiting, left, found = [("Model", 0, len(data))], _MOST_FIELDS, None
    while waiting:
        message, start, stop = waiting.pop()
        children = _CHILDREN.get(message, {})
        for number, value in _fields(data, start, stop):
            left -= 1
            if left < 0:
                raise ValueError(f"more than {_MOST_FIELDS:,} fields")
            if message == "Tensor" and number in _ELSEWHERE and value:
                return _EXTERNAL
            if isinstance(value, tuple) and number in children:
                waiting.append((children[number], *value))
                found = _FUNCTIONS if children[number] == "Function" else found
            elif message == "Node" and number == _OP_TYPE and isinstance(value, tuple):
                name = data[value[0] : min(value[1], value[0] + _LONGEST_NAME)]
                if name in _LOOPS:
                    return name.decode()
    return found


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


def _broken(path: Path, found: str) -> BundleIntegrityError:
    return BundleIntegrityError(
        "the model cannot be read", path=path, found=found, expected="an ONNX model", remedy="Export the bundle again."
    )
