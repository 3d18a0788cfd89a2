"""The tokenizer: texts to token ids, with the `tokenizers` library."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Encoding, Tokenizer

from ...errors import BundleError, ReaugkdError, TextError
from ..bundle.tokenizer_safety import check_growth, check_size


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
        try:
            encoding = self._tokenizer.encode(text, pair)
        except (TypeError, UnicodeError) as error:
            raise TextError("the text is not valid Unicode", found=ascii(text[:60]), expected="UTF-8") from error
        except BaseException as error:
            if not _from_library(error):
                raise
            raise BundleError(
                "the tokenizer fails on a text", path=self.path, found=str(error), remedy="Export the bundle again."
            ) from error
        size = len(encoding)
        if not 0 < size <= self.max_length:
            raise self._unusable(size, text)
        return encoding

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
