"""From texts to the columns of a knowledge base: keys, soft labels and lines of text."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, ReaugkdError
from ...kb.index.stored_keys import stored_form
from ...kb.knowledge_base import text_line
from ...kb.soft_labels import with_gold
from ...kb.storage.ed25519 import read_public_key
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.heldout_rows import HELDOUT_FILE, HeldOutRows
from ...runtime.data.cells import optional_label
from ...runtime.decision.blending import softmax_many
from ...runtime.inference.session.student import StudentSession
from ...runtime.inference.text.inputs import Text, checked_input
from ...runtime.inference.text.tokenizer import TextTokenizer
from ...runtime.labels import LabelNames
from .settings import BuildSettings

Floats = NDArray[np.float32]

SAME_TEXT = 0.9995
"""Cosine of a key and a held-out query from which the texts count as the same; float16 queries are that exact."""

_HASH_BYTES = 16

HELD_OUT = "has the text of a held-out row"
NO_LABEL = "has no label"


class Encoded(NamedTuple):
    """Usable rows.

    Attributes:
        places: [n], their places among the rows that were given.
        keys: float32 [n, d].
        gold: int32 [n], -1 for none.
        probabilities: [n, c], soft labels.
        lines: the lines of the texts.
    """

    places: NDArray[np.int64]
    keys: Floats
    gold: NDArray[np.int32]
    probabilities: NDArray[np.floating]
    lines: list[bytes]

    def hashes(self) -> NDArray[np.void]:
        """A hash of each text, [n], 16 bytes each."""
        found = b"".join(hashlib.blake2b(line, digest_size=_HASH_BYTES).digest() for line in self.lines)
        hashes: NDArray[np.void] = np.frombuffer(found, f"V{_HASH_BYTES}")
        return hashes


class Encoder:
    """Encodes texts with the student of a bundle, and labels them with the teacher, with their gold labels, or both.

    Args:
        settings: the bundle and the teacher.

    Raises:
        BundleError: same as `Bundle.open`.
    """

    def __init__(self, settings: BuildSettings) -> None:
        signer = None if settings.require_signature is None else read_public_key(settings.require_signature)
        bundle = Bundle.open(settings.bundle, True, signer, settings.follow_links)
        self.bundle, self.manifest = bundle, bundle.manifest
        self._tokenizer = TextTokenizer(bundle.tokenizer_path, self.manifest.max_length)
        self._student = StudentSession(bundle.model_path, settings.threads)
        self._teacher = None if settings.teacher is None else settings.teacher()
        self._names = LabelNames(self.manifest.labels)
        self._index = {name: number for number, name in enumerate(self.manifest.labels)}
        self._heldout = np.zeros((0, self.manifest.kb.ndim), np.float32)
        if HELDOUT_FILE in self.manifest.files:
            ndim, rows = self.manifest.kb.ndim, self.manifest.kb_rows
            self._heldout = HeldOutRows.open(bundle.path, len(self.manifest.labels), ndim, rows).queries

    def encode(
        self,
        texts: Sequence[tuple[int, Text | ReaugkdError]],
        labels: Sequence[object] | None,
        left_out: Counter[str],
        path: str,
    ) -> Encoded:
        """Encode the usable ones of some rows.

        Args:
            texts: the number in the file and the text of each row, or why there is none.
            labels: the label of each row, as written; None for no labels.
            left_out: counts the reasons of the rows that are left out.
            path: their file.

        Raises:
            DataError: a label is none of the bundle's, or no label.
        """
        places, keys, gold, kept = [], [], [], []
        for place, (row, text) in enumerate(texts):
            if isinstance(text, ReaugkdError):
                left_out[text.message] += 1
                continue
            label = -1 if labels is None else self._label(labels[place], row, path)
            if label < 0 and self._teacher is None:
                left_out[NO_LABEL] += 1
                continue
            try:
                key = self.key(text)
            except ReaugkdError as error:
                left_out[error.message] += 1
                continue
            places.append(place)
            keys.append(key)
            gold.append(label)
            kept.append(text)
        found = np.array(keys, np.float32).reshape(-1, self.manifest.kb.ndim)
        if len(self._heldout) and len(found):
            usable = (found @ self._heldout.T).max(axis=1) < SAME_TEXT
            left_out[HELD_OUT] += int((~usable).sum())
        else:
            usable = np.ones(len(found), np.bool_)
        chosen = np.flatnonzero(usable)
        some, golden = [kept[place] for place in chosen], np.array(gold, np.int32)[chosen]
        return Encoded(
            np.array(places, np.int64)[chosen],
            found[chosen],
            golden,
            self._probabilities(some, golden),
            [text_line(text) for text in some],
        )

    def key(self, text: Text) -> Floats:
        """The key of a text, float32 [d], of length 1.

        Raises:
            TextError: the text cannot be used.
        """
        encoding = self._tokenizer.encode(*checked_input(text, self.manifest.text_pair))
        embedding = self._student.run(encoding)[1].reshape(-1)
        found: Floats = embedding / np.linalg.norm(embedding)
        return found

    def stored(self, keys: Floats) -> NDArray[Any]:
        """Keys [n, d] in the form of the index."""
        found = stored_form(keys, self.manifest.kb.dtype)
        return found.astype(np.float16) if self.manifest.kb.dtype == "f16" else found

    def _probabilities(self, texts: list[Text], gold: NDArray[np.int32]) -> NDArray[np.floating]:
        if self._teacher is None or not texts:
            return with_gold(np.zeros((len(texts), len(self.manifest.labels))), gold, 1.0)
        blend = self.manifest.blend
        soft = softmax_many(self._teacher.logits(texts).astype(np.float64), blend.label_temperature)
        return with_gold(soft, gold, blend.gold_share)

    def _label(self, cell: object, row: int, path: str) -> int:
        name = optional_label(cell, path, row)
        if name is None:
            return -1
        found = self._index.get(self._names.read(name))
        if found is None:
            raise DataError(
                "the label is not one of the bundle's",
                path=path,
                row=row,
                found=name,
                expected=", ".join(self.manifest.labels[:5]) + (", ..." if len(self.manifest.labels) > 5 else ""),
                remedy="Remove or correct such rows, remove the work folder (the new bundle's name with .build), and "
                "run the command again; a new label can be added to the new bundle with `reaugkd kb add`.",
            )
        return found
