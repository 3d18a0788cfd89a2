"""Bundles of earlier versions open and give the same predictions (tests/data/bundles, written by its make.py)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command_line import ok, records, refused
from support.paths import KEPT_BUNDLES
from support.tiny_bundle import reseal

from reaugkd import BundleVersionError, Runtime
from reaugkd.kb.index.shards import ShardedIndex
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.kb.soft_labels import DenseLabels, TopLabels
from reaugkd.runtime.bundle.manifest import FORMAT_VERSION, Manifest

KEPT = KEPT_BUNDLES
VERSIONS = sorted(int(path.stem[1:]) for path in KEPT.glob("v*.json"))


def kept(version: int) -> tuple[Path, list[dict[str, Any]]]:
    """A stored bundle and its predictions."""
    answers = json.loads((KEPT / f"v{version}.json").read_text())
    for answer in answers:
        answer["text"] = answer["text"] if isinstance(answer["text"], str) else tuple(answer["text"])
    return KEPT / f"v{version}", answers


def test_there_is_one_of_every_format_that_is_read() -> None:
    assert list(range(1, FORMAT_VERSION + 1)) == VERSIONS
    for version in VERSIONS:
        assert sum(file.stat().st_size for file in kept(version)[0].rglob("*") if file.is_file()) < 60_000


@pytest.mark.parametrize("search", ["graph", "usearch"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_kept_bundle_answers_as_when_it_was_made(version: int, search: str) -> None:
    """With the same labels. The query of i8 keys is more exact than it was: a cosine differs by up to 0.005.

    Version 1 has keys of f32; in version 2 a neighbour differs.
    """
    path, answers = kept(version)
    with Runtime.open(path, search=search) as runtime, Runtime.open(path, search=search, threads=2) as threaded:
        assert runtime.manifest.format_version == version
        found = list(runtime.predict_many(answer["text"] for answer in answers))
        assert found == list(threaded.predict_many(answer["text"] for answer in answers))
    for answer, expected in zip(found, answers, strict=True):
        assert answer.label == expected["label"] and answer.retrieved
        assert answer.student_weight == pytest.approx(expected["student_weight"], abs=0.01)
        assert len({near.id for near in answer.neighbours} & set(expected["neighbours"])) >= len(answer.neighbours) - 1
        np.testing.assert_allclose(
            answer.student_probabilities, expected["student_probabilities"], rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(
            answer.probabilities, expected["probabilities"], atol={1: 1e-4, 2: 0.1, 3: 5e-3}[version]
        )


def test_each_has_the_features_of_its_format() -> None:
    with Runtime.open(KEPT / "v1") as first, Runtime.open(KEPT / "v2", retrieval="gated") as second:
        assert isinstance(first.knowledge_base.soft_labels, DenseLabels)
        assert isinstance(second.knowledge_base.soft_labels, TopLabels)
        assert first.knowledge_base.text(0) is not None and second.knowledge_base.text(0) is None
        assert not first.manifest.text_pair and second.manifest.text_pair
        assert second.manifest.gate is not None and second.manifest.blend.weight is not None
    with Runtime.open(KEPT / "v3") as third:
        assert isinstance(third.knowledge_base, KnowledgeBase)
        assert isinstance(third.knowledge_base.index, ShardedIndex) and len(third.knowledge_base.index.shards) == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_every_command_that_reads_a_bundle_reads_it(version: int) -> None:
    path, answers = kept(version)
    given = answers[0]["text"]
    texts = [given] if isinstance(given, str) else list(given)
    (record,) = records(ok("predict", path, "--format", "jsonl", "--", *texts).out)
    assert record["label"] == answers[0]["label"]
    assert f"format {version}, every file matches its hash" in ok("inspect", path).out


@pytest.mark.parametrize("writer", ["0.9.0", None, 7])
def test_a_newer_format_is_refused_with_the_version_that_reads_it(tmp_path: Path, writer: object) -> None:
    path = Path(shutil.copytree(KEPT / "v2", tmp_path / "newer"))
    newer = FORMAT_VERSION + 1
    reseal(path, format_version=FORMAT_VERSION, versions={"reaugkd": writer} if writer else {})
    manifest = path / "manifest.json"
    manifest.write_text(
        manifest.read_text().replace(f'"format_version": {FORMAT_VERSION}', f'"format_version": {newer}')
    )
    with pytest.raises(BundleVersionError) as caught:
        Runtime.open(path)
    assert caught.value.path == str(manifest) and f"format version {newer}" in str(caught.value)
    if writer == "0.9.0":
        assert "written by reaugkd 0.9.0" in str(caught.value)
        assert "Upgrade reaugkd to 0.9.0 or newer" in str(caught.value)
    else:
        assert "Upgrade reaugkd to a version that reads it" in str(caught.value)
    assert refused("predict", path, "a") == f"error: {caught.value}"


def test_a_newer_format_may_have_changed_everything_else(tmp_path: Path) -> None:
    with pytest.raises(BundleVersionError, match=r"reaugkd 2\.0"):
        Manifest.from_json({"format_version": FORMAT_VERSION + 1, "versions": {"reaugkd": "2.0"}}, tmp_path)
