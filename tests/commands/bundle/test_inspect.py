from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from support.tiny_bundle import build_tiny_bundle, reseal

from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.decision.mixture_weight import BucketWeight, ExampleWeight, LogisticWeight
from reaugkd.runtime.output.bundle_summary import describe


def facts(path: Path) -> dict[str, str]:
    lines = describe(Bundle.open(path)).partition("\n\n")[0].splitlines()
    return {line[:11].strip(): line[11:] for line in lines}


def test_the_description_of_a_bundle(edge_bundle: Path) -> None:
    assert facts(edge_bundle) == {
        "bundle": f"{edge_bundle}, format 1, every file matches its hash",
        "signature": "none",
        "labels": "3: a, b, c",
        "input": "single texts, 24 tokens",
        "teacher": "unknown, on unknown",
        "student": "int8 (dynamic) for test",
        "knowledge": "64 rows with their texts, keys of 16 x f16, ef_search 32",
        "edits": "none",
        "blend": "student 0.400 + neighbours 0.600, k 8, tau 0.1, temperatures: student 1.3, labels 1.5",
        "made with": next(iter(facts(edge_bundle)["made with"].splitlines())),
    }


@pytest.mark.parametrize(
    ("weight", "shown"),
    [
        (
            BucketWeight((0.61, 0.7449), (0.9, 0.5, 0.25)),
            "student by top similarity (0.900 below 0.610, 0.500 below 0.745, 0.250 above) + neighbours the rest, k 8,",
        ),
        (BucketWeight((), (0.5,)), "student by top similarity (0.500 throughout) + neighbours the rest, k 8,"),
        (
            LogisticWeight(-0.5, (1.0, -2.0, 0.25, 4.0, 0.125)),
            "student by sigmoid(-0.500 +1.000 top similarity -2.000 similarity gap +0.250 neighbours' entropy "
            "+4.000 student's entropy +0.125 agreement) + neighbours the rest, k 8,",
        ),
    ],
)
def test_a_weight_per_example(tmp_path: Path, weight: ExampleWeight, shown: str) -> None:
    path = build_tiny_bundle(tmp_path / "tiny")
    blend = dataclasses.replace(Bundle.open(path).manifest.blend, weight=weight)
    reseal(path, blend=json.loads(json.dumps(dataclasses.asdict(blend))))
    assert facts(path)["blend"].startswith(shown)


def test_every_file_is_listed_with_its_size(edge_bundle: Path) -> None:
    manifest = Bundle.open(edge_bundle).manifest
    rows = describe(Bundle.open(edge_bundle)).partition("\n\n")[2].splitlines()[2:]
    listed = {row.split()[0]: row.split()[1:] for row in rows}
    total = listed.pop("total")
    assert listed == {name: [f"{file.bytes:,}", file.sha256[:12]] for name, file in manifest.files.items()}
    assert total == [f"{sum(file.bytes for file in manifest.files.values()):,}"]


def test_pairs_many_labels_and_no_texts(tmp_path: Path) -> None:
    path = build_tiny_bundle(tmp_path / "tiny", pairs=True, texts=False, labels=[f"label{n}" for n in range(9)])
    found = facts(path)
    assert found["labels"] == "9: label0, label1, label2, label3, label4, label5, ..."
    assert found["input"].startswith("pairs of texts")
    assert found["knowledge"].startswith("64 rows without their texts")


def test_an_empty_knowledge_base(tmp_path: Path) -> None:
    assert facts(build_tiny_bundle(tmp_path / "tiny", rows=0))["knowledge"].startswith("0 rows")


@pytest.mark.parametrize(
    ("quantization", "shown"),
    [
        ({"kind": "none"}, "float32"),
        ({"kind": "static", "target": "arm64", "int8": 26}, "int8 (static) for arm64, 26 matrix products quantized"),
        ({}, "int8 (unknown) for an unknown processor"),
    ],
)
def test_the_student(tmp_path: Path, quantization: dict[str, object], shown: str) -> None:
    path = build_tiny_bundle(tmp_path / "tiny")
    reseal(path, quantization=quantization)
    assert facts(path)["student"] == shown


def test_the_gate_and_the_origin(tmp_path: Path) -> None:
    path = build_tiny_bundle(tmp_path / "tiny")
    quality = {
        "label_agreement": 0.9833,
        "rows": 900,
        "accuracy_float32": 0.9222,
        "accuracy": 0.9211,
        "neighbour_overlap": 0.8731,
    }
    reseal(path, quality=quality, created_from={"teacher": "org/model", "data": {"name": "banking77"}})
    found = facts(path)
    assert found["teacher"] == "org/model, on banking77"
    assert "gate" not in found
    assert found["quality"] == (
        "98.33% of 900 held-out rows get the float32 label, accuracy 92.22% -> 92.11%, neighbour overlap 87.31%"
    )


def test_the_gates_savings_and_cost_are_shown(tmp_path: Path) -> None:
    path = build_tiny_bundle(tmp_path / "tiny")
    gate = {"threshold": 0.875, "epsilon": 0.005, "delta": 0.05, "rows": 902, "losses": 1, "retrieved": 0.2461}
    reseal(path, gate=gate)
    assert facts(path)["gate"] == (
        "threshold 0.875, retrieves for 24.6% of the rows that certified it, loses at most 0.50% accuracy "
        "with confidence 95% (902 rows)"
    )
