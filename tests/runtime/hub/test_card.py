"""The model card and config.json, read as the Hub reads them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCardData
from huggingface_hub.repocard import RepoCard

from reaugkd import BundleError, Runtime
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.bundle.manifest import Manifest, seal
from reaugkd.runtime.hub.card import card, config, edited_card, write_card

QUALITY: dict[str, Any] = {
    "tuning": {
        "rows": 1205,
        "accuracy": {"student": 0.9759, "retrieval": 0.9634, "blend": 0.9776},
        "nll": {"student": 0.0902, "retrieval": 0.0724, "blend": 0.0661},
    }
}
ORIGIN = {"teacher": "intfloat/e5-small", "data": {"name": "clinc120"}, "recipe": {"student": {"model": ""}}}


@pytest.fixture
def manifest(edge_bundle: Path) -> Manifest:
    return replace(Bundle.open(edge_bundle).manifest, quality=QUALITY, created_from=ORIGIN)


def metadata(manifest: Manifest) -> ModelCardData:
    data = RepoCard(card(manifest)).data
    return ModelCardData(**data.to_dict())


def test_the_hub_reads_the_metadata_and_the_figures(manifest: Manifest) -> None:
    data = metadata(manifest)
    assert (data.library_name, data.pipeline_tag) == ("reaugkd", "text-classification")
    assert data.base_model == "intfloat/e5-small" and "knowledge-distillation" in data.tags
    [result] = ModelCardData(**data.to_dict()).eval_results or []
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("clinc120", "accuracy", 0.9776)
    text = card(manifest)
    assert "On 1205 held-out rows" in text and "| both, as it answers | 97.76% | 0.066 |" in text
    condensed = replace(manifest, kb_rows=40, quality={**QUALITY, "condensation": {"accuracy": 0.9701}})
    assert "condensed to 40 rows: accuracy 97.01%" in card(condensed)
    assert [one.metric_value for one in metadata(condensed).eval_results or []] == [0.9701]


def test_the_base_model_is_the_one_whose_weights_the_student_has(manifest: Manifest) -> None:
    student = {**ORIGIN, "recipe": {"student": {"model": "google/bert_uncased"}}}
    assert metadata(replace(manifest, created_from=student)).base_model == "google/bert_uncased"
    local = {**ORIGIN, "teacher": "all-MiniLM-L6-v2"}  # a folder's name is no name of the Hub
    assert metadata(replace(manifest, created_from=local)).base_model is None


@pytest.mark.parametrize(
    "wrong", [{}, {"tuning": 3}, {"tuning": {"accuracy": {"blend": "x"}}}, {"tuning": {"nll": []}}]
)
def test_a_bundle_without_figures_has_a_card_without_figures(manifest: Manifest, wrong: dict[str, Any]) -> None:
    bare = replace(manifest, quality=wrong, created_from={"teacher": 3, "data": [], "recipe": "x"}, files={})
    assert "no figures" in card(bare) and metadata(bare).eval_results is None


def test_names_cannot_break_out_of_the_card(manifest: Manifest) -> None:
    evil = "x\n---\n<script>alert(1)</script> [a](http://b) | `c`: {d} \x07"
    origin = {"teacher": evil, "data": {"name": evil}, "recipe": {"student": {"model": evil}}}
    hostile = replace(manifest, labels=(evil, "b"), created_from=origin, versions={evil: evil})
    text = card(hostile)
    assert text.split("---\n")[0] == "" and len(text.split("\n---\n")) == 2
    body = re.sub("`[^`]*`", "", text.split("\n---\n")[1].replace("\\`", ""))  # without code, where marks are plain
    assert "\x07" not in text and "<script>" not in body and "[a](http" not in body
    assert metadata(hostile).library_name == "reaugkd"
    assert json.loads(config(hostile))["id2label"] == {"0": evil, "1": "b"}


def test_anyone_may_edit_the_files_and_the_bundle_opens(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        expected = runtime.predict("noon").probabilities.tobytes()
        write_card(bundle, runtime.manifest)
    files = dict(Bundle.open(bundle).manifest.files)
    (bundle / "README.md").write_text("my words")
    write_card(bundle, Bundle.open(bundle).manifest)
    assert (bundle / "README.md").read_text() == "my words"  # what people wrote is kept
    assert edited_card(Bundle.open(bundle)) == {"README.md": b"my words"}
    (bundle / "README.md").unlink()
    (bundle / "README.md").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="a link leads out"):  # a copy must not have it
        edited_card(Bundle.open(bundle))
    assert seal(bundle, Bundle.open(bundle).manifest).files == files  # a new seal leaves them out too
    settings = json.loads((bundle / "config.json").read_text())
    assert settings["label2id"] == {"a": 0, "b": 1, "c": 2} and settings["max_length"] == 24
    with Runtime.open(bundle) as runtime:
        assert runtime.predict("noon").probabilities.tobytes() == expected
