"""What an ONNX file contains, read without the onnx library; external data, loops and functions are refused.

Threats from a hostile bundle:

- External data: a tensor may be stored in another file, at any path. A bundle's model is a single file.
- Loops: an encoder has none. A loop may never end, and ONNX Runtime runs some loops while it loads a model.
- Functions: 30 functions that each call the previous one twice become 10^9 nodes when ONNX Runtime inlines them.

The check reads the structure of the protocol buffer and skips the weights: a few milliseconds for 20 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import BundleError, BundleIntegrityError

# Field numbers of onnx.proto: message -> field -> message, for every path to a TensorProto, and what is read below.
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "Operators", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 12: "Output", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
}
_ELSEWHERE = (13, 14)  # TensorProto's external_data, and data_location where it is not 0
_OP_TYPE, _LOOPS, _LONGEST_NAME = 4, (b"Loop", b"Scan", b"SequenceMap"), 16
_EXTERNAL = "external data"
_NO_LOOP = ("the model has a loop", "an encoder without loops")
_REFUSED = {_EXTERNAL: ("the model stores tensors in other files", "a model in one file")}
_REFUSED |= {name.decode(): _NO_LOOP for name in _LOOPS}
_FUNCTIONS = "functions"
_REFUSED[_FUNCTIONS] = ("the model defines functions", "an encoder with standard operators only")
_LARGEST = 2**31 - 1  # the largest protocol buffer
_MOST_FIELDS = 1_000_000  # an encoder of twelve layers has 20,000
_GRAPH, _OPSET, _OUTPUT, _NAME, _DOMAIN, _VERSION = 7, 8, 12, 1, 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_onnx_file(path: Path) -> bytes:
    """Read and check a model file.

    Raises:
        BundleError: the model has external data, a loop or a function.
        BundleIntegrityError: the file is missing, or is not an ONNX model.
    """  # noqa: DOC501
    try:
        size = path.stat().st_size
        if not 0 < size <= _LARGEST:
            raise _broken(path, f"{size:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise _broken(path, str(error.strerror)) from error
    try:
        unwanted = _unwanted(data)
    except (IndexError, ValueError) as error:
        raise _broken(path, str(error)) from error
    if unwanted is not None:
        message, expected = _REFUSED[unwanted]
        raise BundleError(message, path=path, found=unwanted, expected=expected, remedy="Export the bundle again.")
    return data


def output_names(model: bytes) -> set[str]:
    """The names of the outputs of a checked model."""
    values = _nested(model, _nested(model, [(0, len(model))], _GRAPH), _OUTPUT)
    return {_text(model, place) for place in _nested(model, values, _NAME)}


def operator_sets(model: bytes) -> dict[str, int]:
    """The operators that a checked model imports: domain to version; the default domain is the empty text."""
    found = {}
    for start, stop in _nested(model, [(0, len(model))], _OPSET):
        fields = dict(_fields(model, start, stop))
        domain, version = fields.get(_DOMAIN, (0, 0)), fields.get(_VERSION, 0)
        if isinstance(domain, tuple) and isinstance(version, int):
            found[_text(model, domain)] = version
    return found


def _nested(data: bytes, messages: list[tuple[int, int]], number: int) -> list[tuple[int, int]]:
    """The places of a field of some messages."""
    fields = [field for start, stop in messages for field in _fields(data, start, stop)]
    return [value for field, value in fields if field == number and isinstance(value, tuple)]


def _text(model: bytes, place: tuple[int, int]) -> str:
    return model[slice(*place)].decode(errors="replace")  # a hostile name is no UTF-8


def _unwanted(data: bytes) -> str | None:
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


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Yield the (field number, value) pairs of one message; the value is an integer, or the (start, stop) of bytes.

    Raises:
        ValueError: the message is malformed.
    """
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


def _varint(data: bytes, at: int) -> tuple[int, int]:
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
