"""Texts with a given number of tokens, cut from real texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reaugkd.errors import UsageError
from reaugkd.runtime.inference.text.inputs import Text
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer

LENGTHS = (8, 16, 32, 64, 128)

_ATTEMPTS = 20  # per text; a cut word may be tokenized differently from the whole word
_MOST_EMPTY = 50  # consecutive texts without a token before the search for texts ends


def usual_lengths(max_length: int) -> tuple[int, ...]:
    """Return 8, 16, 32, 64 and 128 tokens, up to the model's maximum."""
    return tuple(length for length in LENGTHS if length <= max_length) or (max_length,)


def texts_of_length(
    tokenizer: TextTokenizer, texts: Sequence[Text], tokens: int, count: int, seed: int = 0
) -> list[Text]:
    """Return texts of exactly ``tokens`` tokens, or pairs if ``texts`` are pairs.

    Each is the beginning of one of ``texts``, or of several joined texts if one is too short.

    Args:
        tokenizer: the tokenizer that counts tokens.
        texts: at least one text; they are drawn at random.
        tokens: number of tokens, special tokens included.
        count: number of texts to return.
        seed: seed of the random draws.

    Raises:
        UsageError: no such text exists, because the special tokens leave no room, or because the tokenizer truncates
            earlier.
    """
    rng = np.random.default_rng(seed)
    parts = [[text] if isinstance(text, str) else list(text) for text in texts]
    pieces = tokens - sum(tokenizer.encode(*parts[0]).special_tokens_mask)
    # The second text of a pair has the odd token.
    shares = [pieces] if len(parts[0]) == 1 else [pieces // 2, pieces - pieces // 2]
    made: list[Text] = []
    while len(made) < count:
        for _ in range(_ATTEMPTS if min(shares) > 0 else 0):
            found = [_beginning(tokenizer, [of[i] for of in parts], share, rng) for i, share in enumerate(shares)]
            if all(found) and len(tokenizer.encode(*found)) == tokens:
                break
        else:
            raise UsageError(
                "there are no texts with this number of tokens",
                found=tokens,
                expected=f"room for a word beside the special tokens, at most {tokenizer.max_length} (max_length)",
                remedy="Choose other lengths (--tokens), or give texts that can be cut to this one (--data).",
            )
        made.append(found[0] if len(found) == 1 else (found[0], found[1]))
    return made


def _beginning(tokenizer: TextTokenizer, texts: Sequence[str], pieces: int, rng: np.random.Generator) -> str:
    """Return the first ``pieces`` tokens of joined texts, without special tokens; "" if there is no such text."""
    joined, ends, barren = "", list[int](), 0
    while len(ends) < pieces and barren < _MOST_EMPTY:
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
