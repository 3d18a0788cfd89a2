"""Texts of a given number of tokens, cut from real ones: what a student's time depends on is their length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reaugkd.errors import UsageError
from reaugkd.runtime.inference.inputs import Text
from reaugkd.runtime.inference.tokenizer import TextTokenizer

LENGTHS = (8, 16, 32, 64, 128)

_ATTEMPTS = 20  # a text; what is left of a word may be split otherwise than the whole word was
_BARREN = 50  # texts without a token in a row: there are hardly any others


def usual_lengths(max_length: int) -> tuple[int, ...]:
    """8, 16, 32, 64 and 128 tokens, as far as the model reads."""
    return tuple(length for length in LENGTHS if length <= max_length) or (max_length,)


def texts_of_length(
    tokenizer: TextTokenizer, texts: Sequence[Text], tokens: int, count: int, seed: int = 0
) -> list[Text]:
    """Texts, or pairs where ``texts`` are pairs, of exactly so many tokens.

    Each is the beginning of one of ``texts``, or of several in a row where one is too short.

    Args:
        tokenizer: counts.
        texts: at least one; they are drawn at random.
        tokens: special ones counted.
        count: how many to make.
        seed: of the drawing.

    Raises:
        UsageError: no such text can be made, because there is no room beside the special tokens, or because the
            tokenizer cuts texts off before.
    """
    rng = np.random.default_rng(seed)
    parts = [[text] if isinstance(text, str) else list(text) for text in texts]
    pieces = tokens - sum(tokenizer.encode(*parts[0]).special_tokens_mask)
    # Of a pair, the second has the odd one.
    shares = [pieces] if len(parts[0]) == 1 else [pieces // 2, pieces - pieces // 2]
    made: list[Text] = []
    while len(made) < count:
        for _ in range(_ATTEMPTS if min(shares) > 0 else 0):
            found = [_beginning(tokenizer, [of[i] for of in parts], share, rng) for i, share in enumerate(shares)]
            if all(found) and len(tokenizer.encode(*found)) == tokens:
                break
        else:
            raise UsageError(
                "no texts of so many tokens can be made",
                found=tokens,
                expected=f"room for a word beside the special tokens, at most {tokenizer.max_length} (max_length)",
                remedy="Choose other lengths (--tokens), or give texts that can be cut to this one (--data).",
            )
        made.append(found[0] if len(found) == 1 else (found[0], found[1]))
    return made


def _beginning(tokenizer: TextTokenizer, texts: Sequence[str], pieces: int, rng: np.random.Generator) -> str:
    """The first ``pieces`` tokens of some texts in a row, special ones not counted; "" where that cannot be."""
    joined, ends, barren = "", list[int](), 0
    while len(ends) < pieces and barren < _BARREN:
        more = f"{joined} {texts[int(rng.integers(len(texts)))]}".lstrip()
        if not more:
            barren += 1
            continue
        encoding = tokenizer.encode(more)
        spans = zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
        found = [end for (_, end), special in spans if not special]
        if len(found) > len(ends):
            joined, ends, barren = more, found, 0
        elif len(encoding) >= tokenizer.max_length:
            break
        else:
            barren += 1
    return joined[: ends[pieces - 1]] if len(ends) >= pieces else ""
