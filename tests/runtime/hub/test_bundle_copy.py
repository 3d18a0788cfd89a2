"""Copies of bundles for the Hub."""

from __future__ import annotations

from pathlib import Path

from support.heldout_bundle import seen
from support.tiny_bundle import tiny_texts

from reaugkd import Row, Runtime
from reaugkd.runtime.hub.bundle_copy import copy_bundle


def test_a_copy_has_the_classifier_of_new_labels(bundle: Path, tmp_path: Path) -> None:
    texts, asked = tiny_texts(20, seed=9), tiny_texts(20, seed=5)
    with Runtime.open(bundle) as runtime:
        for turn in range(2):  # the second classifier is fitted after a compaction
            runtime.kb.add([Row(text, f"new {turn}") for text in texts[turn::2]], new_labels=True)
            assert runtime.kb.wait() is not None
            copy_bundle(bundle, tmp_path / str(turn))
            expected = [seen(answer) for answer in runtime.predict_many(asked)]
            with Runtime.open(tmp_path / str(turn)) as copy:
                assert copy.predict("noon").classified and [*map(seen, copy.predict_many(asked))] == expected
                assert copy.kb.seq == runtime.kb.seq
            runtime.kb.compact()
