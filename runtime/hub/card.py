"""The files that the Hugging Face Hub shows: the model card ``README.md``, and ``config.json``.

They are written from the manifest at the export. They have no hash in it, so that people can edit them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from ...errors import one_line
from ...kb.storage.atomic import atomic_write
from ..bundle.bundle import MODEL_FILE, Bundle
from ..bundle.files import find_file
from ..bundle.manifest import CARD_FILE, CONFIG_FILE, Manifest
from .address import is_repository

REPOSITORY = "OWNER/NAME"
"""Stands in a card for the name of its repository, until it is pushed there."""

_TAGS = ("text-classification", "onnx", "retrieval-augmented", "knowledge-distillation", "reaugkd")
_MOST_LABELS = 200
_SYSTEMS = {"student": "the student alone", "retrieval": "its neighbours alone", "blend": "both, as it answers"}


def write_card(folder: Path, manifest: Manifest, edited: Mapping[str, bytes] | None = None) -> None:
    """Write the model card and config.json of a bundle; a file that exists is kept.

    Args:
        folder: the bundle's folder.
        manifest: its sealed manifest.
        edited: `edited_card` of the bundle that it is made from: these files are copied.

    Raises:
        StorageError: a file cannot be written.
    """
    contents = {name: content.encode() for name, content in _written(manifest).items()} | dict(edited or {})
    for name, content in contents.items():
        if not (folder / name).exists():
            with atomic_write(folder / name, "wb") as file:
                file.write(content)


def edited_card(bundle: Bundle, follow_links: bool = False) -> dict[str, bytes]:
    """The model card and config.json of a bundle, as far as they are not as they were written for it.

    Args:
        bundle: the bundle.
        follow_links: same as `Bundle.open`.

    Returns:
        name -> content of each file that people edited.

    Raises:
        BundleError: one is no plain file: it could be any file of this machine.
    """
    found = {}
    for name, content in _written(bundle.manifest).items():
        if os.path.lexists(bundle.path / name):
            find_file(bundle.path, name, "a file", "followed" if follow_links else "inside")
            there = (bundle.path / name).read_bytes()
            if there != content.encode():
                found[name] = there
    return found


def _written(manifest: Manifest) -> dict[str, str]:
    return {CARD_FILE: card(manifest), CONFIG_FILE: config(manifest)}


def config(manifest: Manifest) -> str:
    """The content of config.json, by which the Hub counts downloads."""
    names = dict(enumerate(manifest.labels))
    settings = {
        "library_name": "reaugkd",
        "bundle_format": manifest.format_version,
        "max_length": manifest.max_length,
        "text_pair": manifest.text_pair,
        "id2label": names,
        "label2id": {label: number for number, label in names.items()},
    }
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def card(manifest: Manifest) -> str:
    """The model card: metadata in YAML, then Markdown. It has no text of the training data."""
    data, teacher = _data(manifest), _text(manifest.created_from.get("teacher"))
    size = sum(record.bytes for record in manifest.files.values()) / 1e6
    student = manifest.files[MODEL_FILE].bytes / 1e6 if MODEL_FILE in manifest.files else 0
    example = '("some text", "another text")' if manifest.text_pair else '"some text"'
    words = example.strip("()").replace(",", "")
    labels = ", ".join(f"`{_code(label)}`" for label in manifest.labels[:_MOST_LABELS])
    more = len(manifest.labels) - _MOST_LABELS
    return f"""---
{_metadata(manifest)}
---

# Text classifier{f" for {_markdown(data)}" if data else ""}

A small text classifier for the CPU, distilled from {_markdown(teacher) or "a larger model"}. It looks up the most \
similar rows of a knowledge base of {manifest.kb_rows:,} rows and blends their teacher's labels into its answer. \
Rows can be added, removed and relabelled without training.

| | |
|---|---|
| input | {"two texts" if manifest.text_pair else "one text"}, cut to {manifest.max_length} tokens |
| labels | {len(manifest.labels)} |
| student | {student:.1f} MB, ONNX, {_markdown(_text(manifest.quantization.get("kind")) or "unknown")} quantization |
| whole bundle | {size:.1f} MB |

## Use

    pip install 'reaugkd[hub]'
    reaugkd predict hf://{REPOSITORY} {words}

```python
from reaugkd import Runtime

runtime = Runtime.from_pretrained("{REPOSITORY}")
answer = runtime.predict({example})
print(answer.label, answer.probability)
```

## Labels

{labels}{f", and {more:,} more in {CONFIG_FILE}" if more > 0 else ""}

## Quality

{_quality(manifest)}

## Training data, limits, licence

Trained on {_markdown(data) or "data that the bundle does not name"}. The answers are as good as the data and the \
teacher are, and are meant for texts like those. Add here: where the data come from, what the classifier must not be \
used for, the licence (`license:` above too) and the language (`language:`).

The knowledge base is made of training data. The bundle reveals parts of it, also where it stores no texts.

## Versions

{", ".join(f"{_markdown(name)} {_markdown(str(version))}" for name, version in manifest.versions.items())}
"""


def _metadata(manifest: Manifest) -> str:
    """The lines of YAML; JSON is a part of YAML."""
    fields: dict[str, Any] = {"library_name": "reaugkd", "pipeline_tag": "text-classification"}
    base = _base_model(manifest)
    if base:
        fields |= {"base_model": base, "base_model_relation": "finetune"}
    fields["tags"] = [*_TAGS, *(["int8"] if manifest.quantization.get("kind") != "none" else [])]
    data, found = _data(manifest), _accuracy(manifest)
    if found is not None:
        fields["metrics"] = ["accuracy"]
    if data and found is not None:
        result = {
            "task": {"type": "text-classification"},
            # The Hub takes only names without blanks as the type.
            "dataset": {"type": re.sub(r"[^\w.-]+", "-", data, flags=re.ASCII), "name": data, "split": "heldout"},
            "metrics": [{"type": "accuracy", "value": round(found, 4)}],
        }
        fields["model-index"] = [{"name": f"reaugkd {data}", "results": [result]}]
    return "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())


def _base_model(manifest: Manifest) -> str | None:
    """The model that the student's weights come from, if it is one of the Hub: by default the teacher."""
    made = manifest.created_from
    student = _of(_of(made.get("recipe")).get("student")).get("model")
    name = _text(student or made.get("teacher"))
    return name if is_repository(name) else None


def _quality(manifest: Manifest) -> str:
    tuning = _of(manifest.quality.get("tuning"))
    accuracy, nll = _of(tuning.get("accuracy")), _of(tuning.get("nll"))
    rows = [
        f"| {what} | {accuracy[name]:.2%} | {nll[name]:.3f} |"
        for name, what in _SYSTEMS.items()
        if _is_number(accuracy.get(name)) and _is_number(nll.get(name))
    ]
    if not rows:
        return "The bundle has no figures. Measure it on rows of your own: `reaugkd eval BUNDLE --data FILE`."
    condensed = _of(manifest.quality.get("condensation"))
    lines = [
        f"On {tuning.get('rows', 'the')} held-out rows of the training data, by which the blend was tuned:",
        "",
        "| | accuracy | negative log-likelihood |",
        "|---|---|---|",
        *rows,
        "",
    ]
    if condensed and _is_number(condensed.get("accuracy")):
        lines += [
            f"The knowledge base was condensed to {manifest.kb_rows:,} rows: accuracy {condensed['accuracy']:.2%}.",
            "",
        ]
    return "\n".join([*lines, "Measure it on rows of your own: `reaugkd eval BUNDLE --data FILE`."])


def _accuracy(manifest: Manifest) -> float | None:
    """The accuracy on the held-out rows."""
    quality = manifest.quality
    for found in (
        _of(quality.get("condensation")).get("accuracy"),
        _of(_of(quality.get("tuning")).get("accuracy")).get("blend"),
    ):
        if _is_number(found):
            return found
    return None


def _data(manifest: Manifest) -> str:
    return _text(_of(manifest.created_from.get("data")).get("name"))


def _of(value: object) -> dict[str, Any]:
    """A section of the manifest; empty if it has another type, because manifests are not checked there."""
    return value if isinstance(value, dict) else {}


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    return one_line(value) if isinstance(value, str) else ""


def _markdown(text: str) -> str:
    """A text that Markdown and HTML show as it is."""
    return _escaped(one_line(text), "\\`*_[]<>|#&")


def _escaped(text: str, marks: Iterable[str]) -> str:
    return "".join(f"\\{mark}" if mark in marks else mark for mark in text)


def _code(text: str) -> str:
    """A text between back quotes."""
    return one_line(text).replace("`", "'")
