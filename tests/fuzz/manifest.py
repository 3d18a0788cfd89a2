"""Fuzz the bytes of a manifest: it survives a round trip, or an error of the package is raised."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path

from reaugkd.errors import ReaugkdError
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.storage.strict_json import parse_json
from reaugkd.runtime.bundle.manifest import FileRecord, Golden, Manifest
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.gating import Gate
from reaugkd.runtime.decision.mixture_weight import BucketWeight, LogisticWeight

FILE = Path("manifest.json")
GOOD = Manifest(
    labels=("a", "b"),
    max_length=24,
    pooling="mean",
    text_pair=False,
    blend=BlendConfig(k=8, tau=0.1, student_weight=0.4),
    kb=IndexConfig(ndim=16),
    kb_rows=40,
    gate=Gate(0.9, 0.005, 0.05, 400, 1, 0.1),
    golden=(
        Golden("call", (2, 4, 3), (0.5, -1.0), 1e-4),
        Golden(("call", "b"), (2, 4, 3, 5, 3), (0.5, -1.0), 1e-4),
    ),
    files={"student/model.onnx": FileRecord(7, "0" * 64)},
)


@cache
def seeds() -> list[bytes]:
    """Return a manifest for each kind of weight."""
    weights = (
        None,
        BucketWeight(edges=(0.5,), weights=(0.9, 0.1)),
        LogisticWeight(0.5, (1.0, 2.0, 0.0, -1.0, 3.0)),
    )
    blends = [dataclasses.replace(GOOD.blend, weight=weight) for weight in weights]
    return [json.dumps(dataclasses.replace(GOOD, blend=blend).to_json()).encode() for blend in blends]


def check(data: bytes) -> None:
    """Raise an error if the input breaks a promise."""
    try:
        manifest = Manifest.from_json(parse_json(data), FILE)
    except (ReaugkdError, ValueError) as error:
        if isinstance(error, ValueError) and not isinstance(error, ReaugkdError) and _reads(data):
            raise
        return
    again = json.loads(json.dumps(manifest.to_json(), allow_nan=False))
    assert Manifest.from_json(again, FILE) == manifest


def _reads(data: bytes) -> bool:
    try:
        parse_json(data)
    except ValueError:
        return False
    return True
