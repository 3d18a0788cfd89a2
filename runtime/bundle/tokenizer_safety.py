"""What a tokenizer may make of a text: bounds on the steps that make texts longer, or take time in their square.

A ``tokenizer.json`` is a program of a kind. Ten steps that put ten characters in the place of one, one after another,
make ten thousand million of each. How much longer each step can make a text is known from its settings, all together
from their product. What cannot be known is how long a regular expression takes: the library gives a match up after ten
million tries, which is an error like others, but there is a match for every character.
"""

from __future__ import annotations

import binascii
import json
import math
import struct
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ...errors import BundleError

MOST_BYTES = 64 * 2**20
"""Of a file; one of a vocabulary of 250,000 pieces takes 17 MB."""

_MOST_GROWTH = 100.0
_LONGEST_WORD = 1000  # WordPiece looks at each start and end within a word; its default is 100
_BYTES = 4.0  # of a character, each of which becomes one
_SPACED = 3.0


def check_size(path: Path) -> None:
    """Raise where the file is too large to be read.

    Raises:
        OSError: the file is missing.
        BundleError: it is larger than `MOST_BYTES`.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise _refused(path, f"{size:,} bytes", f"at most {MOST_BYTES:,}")


def check_growth(tokenizer: Tokenizer, path: Path) -> None:
    """Raise where the tokenizer can make a text a hundred times longer, or has no limit to a word.

    Raises:
        BundleError: so it is.
    """
    parts = [tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.post_processor]
    growth = math.prod(_growth(json.loads(part.__getstate__())) for part in parts if part is not None)
    if not growth <= _MOST_GROWTH:
        raise _refused(path, f"steps that make a text {growth:.4g} times longer", f"at most {_MOST_GROWTH:g} times")
    longest = getattr(tokenizer.model, "max_input_chars_per_word", 0)
    if longest > _LONGEST_WORD:
        raise _refused(path, f"words of {longest:,} characters", f"at most {_LONGEST_WORD:,}")


def _growth(step: dict[str, Any]) -> float:
    """How many times longer a step can make a text, but for what it adds once."""
    kind = step.get("type")
    if kind == "Sequence":
        inner = [value for value in step.values() if isinstance(value, list)]
        return math.prod(_growth(part) for steps in inner for part in steps)
    if kind == "Replace":
        return _replaced(step["pattern"], step["content"])
    if kind == "TemplateProcessing":
        pieces = [step["single"], step["pair"]]
        return max(1.0, *(sum("Sequence" in piece for piece in template) / of for of, template in enumerate(pieces, 1)))
    if kind == "Precompiled":
        return _precompiled(step["precompiled_charsmap"])
    return {"ByteLevel": _BYTES, "BertNormalizer": _SPACED}.get(str(kind), 1.0)


def _replaced(pattern: dict[str, str], content: str) -> float:
    literal = pattern.get("String")
    # A regular expression may match nothing, between any two characters.
    return max(1.0, len(content) / len(literal)) if literal else 1.0 + len(content)


def _precompiled(encoded: str | None) -> float:
    """The longest replacement in a SentencePiece map: a trie of so many bytes, then strings that end with a zero."""
    try:
        data = binascii.a2b_base64(encoded or "")
        (size,) = struct.unpack_from("<I", data)
    except (binascii.Error, struct.error):
        return 1.0
    return float(max(1, *(len(text.decode(errors="replace")) for text in data[4 + size :].split(b"\0"))))


def _refused(path: Path, found: str, expected: str) -> BundleError:
    return BundleError(
        "the tokenizer takes more than a text is worth",
        path=path,
        found=found,
        expected=expected,
        remedy="Export the bundle again.",
    )
