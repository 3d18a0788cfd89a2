"""Safety check of a tokenizer.json: limits on its size, on text expansion and on quadratic time.

Threat: a hostile ``tokenizer.json`` may hold steps that expand a text. Ten steps that each replace a character by ten
make 10^10 characters from one. The settings of each step limit its factor; the product of the factors limits the whole.
The time of a regular expression has no such limit: the library stops a match after ten million steps, which is an error
like others, but there may be a match for every character.
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
"""The largest file; a vocabulary of 250,000 tokens has 17 MB."""

_MOST_GROWTH = 100.0
_LONGEST_WORD = 1000  # WordPiece takes quadratic time in a word's length; its default limit is 100
_BYTES = 4.0  # bytes of a character, each of which becomes a character
_SPACED = 3.0


def check_size(path: Path) -> None:
    """Check the size of a tokenizer.json.

    Raises:
        OSError: the file is missing.
        BundleError: it is larger than `MOST_BYTES`.
    """  # noqa: DOC501
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise _refused(path, f"{size:,} bytes", f"at most {MOST_BYTES:,}")


def check_growth(tokenizer: Tokenizer, path: Path) -> None:
    """Check how far a tokenizer can expand a text.

    Raises:
        BundleError: it can make a text a hundred times longer, it accepts too long words, or an added token is
            normalized to nothing.
    """  # noqa: DOC501
    parts = [tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.post_processor]
    growth = math.prod(_growth(json.loads(part.__getstate__())) for part in parts if part is not None)
    if not growth <= _MOST_GROWTH:
        raise _refused(path, f"steps that expand a text {growth:.4g}-fold", f"at most {_MOST_GROWTH:g}-fold")
    longest = getattr(tokenizer.model, "max_input_chars_per_word", 0)
    if longest > _LONGEST_WORD:
        raise _refused(path, f"words of {longest:,} characters", f"at most {_LONGEST_WORD:,}")
    for token in tokenizer.get_added_tokens_decoder().values():
        # With it, a text that ends like the beginning of another token takes memory without end (tokenizers 0.23).
        if token.normalized and tokenizer.normalizer and not tokenizer.normalizer.normalize_str(token.content):
            raise _refused(path, f"the added token {token.content!a}, which is normalized to nothing", "no such token")


def _growth(step: dict[str, Any]) -> float:
    """Compute the factor by which a step can expand a text, without a constant addition."""
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
    # A regular expression may match the empty string between any two characters.
    return max(1.0, len(content) / len(literal)) if literal else 1.0 + len(content)


def _precompiled(encoded: str | None) -> float:
    """The longest replacement of a SentencePiece map: the size of a trie, the trie, then zero-terminated strings."""
    try:
        data = binascii.a2b_base64(encoded or "")
        (size,) = struct.unpack_from("<I", data)
    except (binascii.Error, struct.error):
        return 1.0
    return float(max(1, *(len(text.decode(errors="replace")) for text in data[4 + size :].split(b"\0"))))


def _refused(path: Path, found: str, expected: str) -> BundleError:
    return BundleError(
        "tokenizer.json is unsafe",
        path=path,
        found=found,
        expected=expected,
        remedy="Export the bundle again.",
    )
