"""Texts to token ids, through the `tokenizers` library alone."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Encoding, Tokenizer

from ...errors import BundleError, ReaugkdError, TextError
from ..bundle.tokenizer_safety import check_growth, check_size


class TextTokenizer:
    """A ``tokenizer.json`` with the truncation of the manifest and no padding, whatever the file says.

    One text at a time: the library's own batch mode starts a thread pool of the host's size, which a fork then breaks.

    Args:
        path: the ``tokenizer.json``.
        max_length: tokens a text, or a pair together, is cut to, special tokens counted; the longer text of a pair is
            cut first.

    Raises:
        BundleError: the file is no tokenizer.
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
        except BaseException as error:  # the library raises bare Exception, and panics
            if not _theirs(error):
                raise
            raise BundleError(
                "the tokenizer cannot be read",
                path=path,
                found=str(error),
                expected="a tokenizer.json",
                remedy="Export the bundle again, or upgrade the tokenizers library.",
            ) from error

    def encode(self, text: str, pair: str | None = None) -> Encoding:
        """The text's (or the pair's) token ids with special tokens, cut to ``max_length``.

        Raises:
            TextError: the text is not valid Unicode, or nothing is left of it.
            BundleError: the tokenizer cannot work with the text, as with a pattern that would take for ever.
        """
        try:
            encoding = self._tokenizer.encode(text, pair)
        except (TypeError, UnicodeError) as error:
            raise TextError("the text is not valid Unicode", found=ascii(text[:60]), expected="UTF-8") from error
        except BaseException as error:
            if not _theirs(error):
                raise
            raise BundleError(
                "the tokenizer fails on a text", path=self.path, found=str(error), remedy="Export the bundle again."
            ) from error
        size = len(encoding)
        if not 0 < size <= self.max_length:
            raise self._unusable(size, text)
        return encoding

    def _unusable(self, size: int, text: str) -> ReaugkdError:
        if size == 0:
            return TextError("the tokenizer leaves nothing of the text", found=ascii(text[:60]))
        return BundleError(
            "the tokenizer adds more special tokens than a text may have in all",
            path=self.path,
            found=f"{size:,} tokens",
            expected=f"at most {self.max_length:,}",
            remedy="Export the bundle again.",
        )


def _theirs(error: BaseException) -> bool:
    """Whether an error is the library's own: what panics in Rust is no Exception in Python, and has no public name."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
