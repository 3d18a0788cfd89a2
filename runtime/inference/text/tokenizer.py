"""The tokenizer: texts to token ids, with the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from tokenizers import Encoding, Tokenizer

from ....errors import BundleError, ReaugkdError, TextError
from ...bundle.tokenizer_safety import check_growth, check_size
from .text_cut import CutPlaces, cut_places
from .word_ids import Tokens, word_ids

Found = TypeVar("Found")

_LONG = 32  # characters for each token of max_length; of a longer text, half as many are usually enough


class TextTokenizer:
    """A ``tokenizer.json`` with the manifest's truncation and without padding, whatever the file says.

    It encodes one text at a time: the library's batch mode starts a thread pool as large as the host, which breaks in a
    forked process.

    Args:
        path: the ``tokenizer.json``.
        max_length: a text, or a pair together, is truncated to this number of tokens, special tokens included; the
            longer text of a pair is truncated first.

    Raises:
        BundleError: the file is not a usable tokenizer.
    """

    def __init__(self, path: Path, max_length: int) -> None:
        self.path = path
        try:
            check_size(path)
            self._tokenizer = Tokenizer.from_file(str(path))
            check_growth(self._tokenizer, path)
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(max_length, strategy="longest_first")
            self.max_length = max_length
            self._words = word_ids(self._tokenizer, max_length)
        except BundleError:
            raise
        except BaseException as error:  # the library raises plain Exception, or panics
            if not _from_library(error):
                raise
            raise BundleError(
                "the tokenizer cannot be read",
                path=path,
                found=str(error),
                expected="a tokenizer.json",
                remedy="Export the bundle again, or upgrade the tokenizers library.",
            ) from error

    def encode(self, text: str, pair: str | None = None) -> Encoding:
        """Encode a text or a pair, with special tokens, truncated to ``max_length``.

        Raises:
            TextError: the text is not valid Unicode, or it has no tokens.
            BundleError: the tokenizer fails on the text, for example because a regular expression takes too long.
        """
        encoding = self._translated(text, self._encoded, text, pair)
        size = len(encoding)
        if not 0 < size <= self.max_length:
            raise self._unusable(size, text)
        return encoding

    def tokens(self, text: str, pair: str | None = None) -> Tokens:
        """The tokens of `encode`, for an answer; where the tokenizer allows it, from a table of words (`word_ids`).

        Raises:
            TextError: same as `encode`.
            BundleError: same as `encode`.
        """
        if self._words is not None and pair is None and len(text) <= _LONG * self.max_length:
            return self._translated(text, self._words.tokens, text)
        encoding = self.encode(text, pair)
        return Tokens(encoding.ids, encoding.type_ids, self.truncated(encoding))

    def _encoded(self, text: str, pair: str | None) -> Encoding:
        if len(text) + len(pair or "") <= _LONG * self.max_length:
            return self._tokenizer.encode(text, pair)
        if pair is None:
            return self._beginning(text) or self._tokenizer.encode(text)
        return self._tokenizer.encode(*self._beginnings(text, pair))

    def _translated(self, text: str, function: Callable[..., Found], *arguments: object) -> Found:
        """Call a function, and translate the library's errors.

        Raises:
            TextError: same as `encode`.
            BundleError: same as `encode`.
        """
        try:
            return function(*arguments)
        except (TypeError, UnicodeError) as error:
            raise TextError("the text is not valid Unicode", found=ascii(text[:60]), expected="UTF-8") from error
        except BaseException as error:
            if not _from_library(error):
                raise
            raise BundleError(
                "the tokenizer fails on a text", path=self.path, found=str(error), remedy="Export the bundle again."
            ) from error

    @cached_property
    def _places(self) -> CutPlaces | None:
        return cut_places(self._tokenizer)

    def _beginning(self, text: str) -> Encoding | None:
        """The encoding of a long text, from its beginning alone; None if the whole text is needed.

        Raises:
            UnicodeError: the text is not valid Unicode.
        """
        if self._places is None:
            return None
        text.encode()  # the library would look at the beginning alone
        end = next(self._places.places(text, _LONG * self.max_length // 2), len(text))
        if end > len(text) // 2:
            return None
        encoding = self._tokenizer.encode(text[:end])
        return encoding if self.truncated(encoding) else None

    def _beginnings(self, first: str, second: str) -> tuple[str, str]:
        """The beginnings of a long pair that have the same encoding.

        The library would join each part of one text that it cuts off with each part of the other.
        """
        ids = self._all_ids(first), self._all_ids(second)
        if len(ids[0]) > len(ids[1]):  # the longer one must stay the longer one: it keeps one token more
            shorter, tokens = self._shortened(second, ids[1], self.max_length)
            return self._shortened(first, ids[0], max(self.max_length, tokens + 1))[0], shorter
        shorter, tokens = self._shortened(first, ids[0], self.max_length)
        return shorter, self._shortened(second, ids[1], max(self.max_length, tokens))[0]

    def _all_ids(self, text: str) -> list[int]:
        """All token ids of a text, without special tokens."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return [*encoding.ids, *(one for part in encoding.overflowing for one in part.ids)]

    def _shortened(self, text: str, ids: list[int], keep: int) -> tuple[str, int]:
        """A beginning of a text with the same first ``keep`` of its ids, and the number of its tokens."""
        size = 4 * keep
        while size < len(text):
            found = self._all_ids(text[:size])
            if len(found) >= keep and found[:keep] == ids[:keep]:
                return text[:size], len(found)
            size *= 2
        return text, len(ids)

    def truncated(self, encoding: Encoding) -> bool:
        """Whether an encoding of `encode` is only the beginning of its text or pair."""
        # The library keeps what it cut off. It copies it at this access, so the length is compared first.
        return len(encoding) == self.max_length and bool(encoding.overflowing)

    def _unusable(self, size: int, text: str) -> ReaugkdError:
        if size == 0:
            return TextError("the text has no tokens", found=ascii(text[:60]))
        return BundleError(
            "the tokenizer adds more special tokens than a text may have",
            path=self.path,
            found=f"{size:,} tokens",
            expected=f"at most {self.max_length:,}",
            remedy="Export the bundle again.",
        )


def _from_library(error: BaseException) -> bool:
    """Whether the library raised an error: a panic in Rust is not a Python Exception, and its class is not public."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
