from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaugkd import BundleError, BundleVersionError, UsageError
from reaugkd.kb.index.config import IndexConfig
from reaugkd.runtime.bundle.manifest import FileRecord, Golden, Manifest, seal, seal_entry
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.gating import Gate
from reaugkd.runtime.decision.mixture_weight import BucketWeight, ExampleWeight, LogisticWeight

MANIFEST = Manifest(
    labels=("no", "ja – yes"),
    max_length=32,
    pooling="mean",
    text_pair=True,
    blend=BlendConfig(k=8, tau=0.05, student_weight=0.3, student_temperature=1.2, label_temperature=2.0),
    kb=IndexConfig(64, dtype="i8", connectivity=8, expansion_add=32, expansion_search=24),
    kb_rows=1000,
    golden=(
        Golden(text=("a", "b"), token_ids=(2, 5, 3), logits=(0.1, -2.5), tolerance=1e-3),
        Golden(text="single", token_ids=(), logits=(), tolerance=0.0),
    ),
    quantization={"kind": "dynamic", "target": "avx2", "nodes": 12},
    quality={"label_agreement": 0.99},
    versions={"onnxruntime": "1.31.1"},
    created_from={"teacher": "x"},
    files={"student/model.onnx": FileRecord(3, "ab" * 32)},
)
FILE = Path("bundle/manifest.json")
GATE = Gate(0.75, 0.005, 0.05, 902, 1, 0.25)

BUCKETS = BucketWeight((0.25, 0.5), (0.9, 0.5, 0.1))
LOGISTIC = LogisticWeight(-0.5, (1.0, -2.0, 0.25, 4.0, 0.125))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def weighted(weight: ExampleWeight) -> Manifest:
    return dataclasses.replace(MANIFEST, blend=dataclasses.replace(MANIFEST.blend, weight=weight))


def plain(manifest: Manifest = MANIFEST) -> dict[str, Any]:
    obj: dict[str, Any] = json.loads(json.dumps(manifest.to_json()))
    return obj


@pytest.mark.parametrize(
    "manifest",
    [MANIFEST, weighted(BUCKETS), weighted(LOGISTIC), dataclasses.replace(MANIFEST, gate=GATE)],
)
def test_json_and_back_is_the_same_manifest(manifest: Manifest) -> None:
    assert Manifest.from_json(plain(manifest), FILE) == manifest


def test_a_weight_per_example_is_a_handful_of_numbers() -> None:
    assert plain(weighted(BUCKETS))["blend"]["weight"] == {
        "kind": "buckets",
        "edges": [0.25, 0.5],
        "weights": [0.9, 0.5, 0.1],
    }
    assert plain(weighted(LOGISTIC))["blend"]["weight"] == {
        "kind": "logistic",
        "intercept": -0.5,
        "coefficients": [1.0, -2.0, 0.25, 4.0, 0.125],
    }


def test_a_manifest_without_a_weight_per_example_reads_as_before() -> None:
    obj = plain()
    assert obj["blend"].pop("weight") is None
    assert Manifest.from_json(obj, FILE) == MANIFEST


@pytest.mark.parametrize(
    ("weight", "named"),
    [
        ("buckets", "weight"),
        ([], "weight"),
        ({}, "kind"),
        ({"kind": 1}, "kind"),
        ({"kind": "constant"}, "kind"),
        ({"kind": "buckets", "edges": [0.5]}, "weights"),
        ({"kind": "buckets", "weights": [0.5]}, "edges"),
        ({"kind": "buckets", "edges": 0.5, "weights": [0.1, 0.2]}, "edges"),
        ({"kind": "buckets", "edges": ["0.5"], "weights": [0.1, 0.2]}, "edges"),
        ({"kind": "buckets", "edges": [True], "weights": [0.1, 0.2]}, "edges"),
        ({"kind": "buckets", "edges": [0.5, 0.5], "weights": [0.1, 0.2, 0.3]}, "edges"),
        ({"kind": "buckets", "edges": [float("nan")], "weights": [0.1, 0.2]}, "edges"),
        ({"kind": "buckets", "edges": [10**400], "weights": [0.1, 0.2]}, "edges"),
        ({"kind": "buckets", "edges": [0.5], "weights": [0.1, 1.2]}, "weights"),
        ({"kind": "buckets", "edges": [0.5], "weights": [0.1, float("nan")]}, "weights"),
        ({"kind": "buckets", "edges": [0.5], "weights": [0.1]}, "weights"),
        ({"kind": "logistic", "coefficients": [0.0] * 5}, "intercept"),
        ({"kind": "logistic", "intercept": float("inf"), "coefficients": [0.0] * 5}, "intercept"),
        ({"kind": "logistic", "intercept": 0.0}, "coefficients"),
        ({"kind": "logistic", "intercept": 0.0, "coefficients": [0.0] * 4}, "coefficients"),
        ({"kind": "logistic", "intercept": 0.0, "coefficients": [float("nan")] * 5}, "coefficients"),
        ({"kind": "logistic", "intercept": 0.0, "coefficients": [None] * 5}, "coefficients"),
    ],
)
def test_a_malformed_weight_per_example_is_named(weight: object, named: str) -> None:
    obj = plain()
    obj["blend"]["weight"] = weight
    with pytest.raises(BundleError, match=rf"blend\.weight.*{named}|blend\.{named}") as caught:
        Manifest.from_json(obj, FILE)
    assert caught.value.path == str(FILE)


def test_unknown_fields_are_ignored() -> None:
    obj = plain()
    obj["doorbell"] = {"threshold": 0.9}
    obj["blend"]["later"] = 1
    assert Manifest.from_json(obj, FILE) == MANIFEST


def test_fields_with_a_default_may_be_missing_from_sections() -> None:
    obj = plain()
    del obj["blend"]["student_temperature"], obj["kb"]["connectivity"]
    read = Manifest.from_json(obj, FILE)
    assert (read.blend.student_temperature, read.kb.connectivity) == (1.0, 16)


def test_whole_numbers_are_numbers() -> None:
    obj = plain()
    obj["blend"]["tau"] = 1
    assert Manifest.from_json(obj, FILE).blend.tau == 1.0


@pytest.mark.parametrize("version", [4, 99])
def test_a_newer_format_is_named_before_anything_else_is_read(version: int) -> None:
    with pytest.raises(BundleVersionError, match=rf"format version {version}.*Upgrade"):
        Manifest.from_json({"format_version": version}, FILE)


@pytest.mark.parametrize("name", sorted(plain().keys() - {"gate", "abstention"}))
@pytest.mark.parametrize("value", [None, [1], {"x": 1}, -1, "?"])
def test_a_missing_or_mistyped_field_is_named(name: str, value: object) -> None:
    if name in ("quantization", "quality", "versions", "created_from") and isinstance(value, dict):
        value = 1  # these are free
    if name == "pooling" and isinstance(value, str):
        value = 1
    obj = plain()
    obj[name] = value
    with pytest.raises(BundleError, match=name) as caught:
        Manifest.from_json(obj, FILE)
    assert caught.value.path == str(FILE)
    del obj[name]
    with pytest.raises(BundleError, match=name):
        Manifest.from_json(obj, FILE)


@pytest.mark.parametrize(
    "value",
    [[1], {"x": 1}, -1, "?", {**dataclasses.asdict(GATE), "threshold": 1.5}, {**dataclasses.asdict(GATE), "rows": 0}],
)
def test_a_gate_may_be_missing_but_not_mistyped(value: object) -> None:
    obj = plain()
    obj["gate"] = value
    with pytest.raises(BundleError, match="gate"):
        Manifest.from_json(obj, FILE)
    obj["gate"] = None
    assert Manifest.from_json(obj, FILE).gate is None
    del obj["gate"]
    assert Manifest.from_json(obj, FILE).gate is None


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("blend", "k", 0),
        ("blend", "k", 2.5),
        ("blend", "tau", 0),
        ("blend", "tau", float("inf")),
        ("blend", "tau", float("nan")),
        ("blend", "student_weight", 1.1),
        ("blend", "student_temperature", -1.0),
        ("kb", "ndim", 0),
        ("kb", "metric", "l2sq"),
        ("kb", "dtype", None),
        ("kb", "expansion_search", True),
        ("kb", "expansion_search", 10**12),
        ("blend", "tau", 10**400),
        ("blend", "k", 10**30),
    ],
)
def test_a_setting_out_of_range_is_named(section: str, name: str, value: object) -> None:
    obj = plain()
    obj[section][name] = value
    with pytest.raises(BundleError, match=rf"{section}.*{name}"):
        Manifest.from_json(obj, FILE)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_golden_text_has_numbers_that_can_be_compared(value: float) -> None:
    """An infinite tolerance would accept every answer."""
    for change in ({"tolerance": value}, {"logits": [value, 0.0]}):
        obj = plain()
        obj["golden"] = [{**obj["golden"][0], **change}]
        with pytest.raises(BundleError, match=rf"golden\.{next(iter(change))}.*finite"):
            Manifest.from_json(obj, FILE)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "..", "", "a\\b"])
def test_files_must_be_below_the_bundle(name: str) -> None:
    obj = plain()
    obj["files"] = {name: {"bytes": 1, "sha256": "0"}}
    with pytest.raises(BundleError, match="below the bundle"):
        Manifest.from_json(obj, FILE)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_json_is_a_manifest_or_a_bundle_error(data: st.DataObject) -> None:
    obj: Any = plain(data.draw(st.sampled_from([MANIFEST, weighted(BUCKETS), weighted(LOGISTIC)])))
    if data.draw(st.booleans()):
        place = obj
        while True:  # walk to some place inside, and put something else there
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
            if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
                place[key] = data.draw(json_values)
                break
            place = place[key]
    else:
        obj = data.draw(json_values)
    try:
        read = Manifest.from_json(obj, FILE)
    except BundleError:
        return
    assert Manifest.from_json(read.to_json(), FILE).to_json() == read.to_json() or "nan" in repr(read)


def test_seal_hashes_every_file_and_itself(tmp_path: Path) -> None:
    for name, content in {"kb/a": b"1", "student/deep/b": b"22", "top": b""}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for _ in range(2):  # sealing again does not list the manifest itself
        sealed = seal(tmp_path, MANIFEST)
        assert sealed.files == {
            "kb/a": FileRecord(1, hashlib.sha256(b"1").hexdigest()),
            "student/deep/b": FileRecord(2, hashlib.sha256(b"22").hexdigest()),
            "top": FileRecord(0, hashlib.sha256(b"").hexdigest()),
        }
    raw = (tmp_path / "manifest.json").read_bytes()
    obj = json.loads(raw)
    assert Manifest.from_json(obj, FILE) == sealed == dataclasses.replace(MANIFEST, files=sealed.files)
    head = raw[: raw.index(b'"seal"')]
    assert obj["seal"] == hashlib.sha256(head).hexdigest()
    assert raw == head + seal_entry(head)


def test_numpy_numbers_and_paths_may_be_recorded(tmp_path: Path) -> None:
    report = {"accuracy": np.float32(0.5), "rows": np.int64(3), "path": Path("a/b"), "ok": np.bool_(True)}
    seal(tmp_path, dataclasses.replace(MANIFEST, quality=report))
    read = json.loads((tmp_path / "manifest.json").read_text())["quality"]
    assert read == {"accuracy": 0.5, "rows": 3, "path": str(Path("a/b")), "ok": True}


def test_values_that_json_lacks_are_not_written(tmp_path: Path) -> None:
    for report, kind in (({"x": float("nan")}, ValueError), ({"x": object()}, TypeError)):
        with pytest.raises(kind):
            seal(tmp_path, dataclasses.replace(MANIFEST, quality=report))
    assert list(tmp_path.iterdir()) == []


def test_blend_settings_are_checked() -> None:
    for change in ({"k": 0}, {"tau": 0.0}, {"student_weight": -0.1}, {"label_temperature": float("nan")}):
        with pytest.raises(UsageError, match=next(iter(change))):
            BlendConfig(**{"k": 1, "tau": 0.1, "student_weight": 0.5, **change})  # type: ignore[arg-type]
