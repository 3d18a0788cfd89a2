"""Classify texts with a fused model, using onnxruntime and tokenizers, without reaugkd.

python classify.py model.onnx BUNDLE/student/tokenizer.json "a text" ["another"]
python classify.py model.onnx BUNDLE/student/tokenizer.json < texts.jsonl    # one "text" or ["a", "b"] a line
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime
from tokenizers import Tokenizer


class Classifier:
    """A fused model and its tokenizer."""

    def __init__(self, model: str, tokenizer: str) -> None:
        options = onnxruntime.SessionOptions()
        # Exact int8 products on x86-64 without VNNI too, where they would saturate in models for VNNI and ARM. Leave it
        # out for a processor with VNNI: there it changes no answer and nearly doubles the time.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._outputs = [node.name for node in self._session.get_outputs()]
        described = self._session.get_modelmeta().custom_metadata_map
        self.labels: list[str] = json.loads(described["reaugkd.labels"])
        self._tokenizer = Tokenizer.from_file(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(json.loads(described["reaugkd.max_length"]))

    def __call__(self, text: str, pair: str | None = None) -> dict[str, Any]:
        """Return every output of the model for one text or one pair."""
        encoding = self._tokenizer.encode(text, pair)
        # One text at a time and no padding: the outputs of an int8 model depend on the other texts of a batch.
        feeds = {
            "input_ids": [encoding.ids],
            "attention_mask": [encoding.attention_mask],
            "token_type_ids": [encoding.type_ids],
        }
        found = self._session.run(None, {name: value for name, value in feeds.items() if name in self._inputs})
        return {name: value[0] for name, value in zip(self._outputs, found, strict=True)}


def texts(arguments: list[str]) -> Iterator[str | list[str]]:
    """Yield the texts of the command line, or those of stdin if there are none."""
    yield from arguments or map(json.loads, sys.stdin)


def main(model: str, tokenizer: str, *arguments: str) -> None:
    """Print one JSON object for each text."""
    classify = Classifier(model, tokenizer)
    for text in texts(list(arguments)):
        answer = classify(text) if isinstance(text, str) else classify(*text)
        plain = {name: value if isinstance(value, str) else value.tolist() for name, value in answer.items()}
        sys.stdout.write(json.dumps(plain, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
