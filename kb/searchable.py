"""The interface of a knowledge base that answers searches."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .index.config import IndexConfig
from .soft_labels import SoftLabels
from .texts import TextDigests


class SearchResult(NamedTuple):
    """The result of a search: ``rows`` int64 [k] and their cosine ``similarities`` float32 [k], descending."""

    rows: NDArray[np.int64]
    similarities: NDArray[np.float32]


class Searchable(Protocol):
    """n rows with keys, soft labels over c labels, and optional texts.

    `KnowledgeBase` implements it for rows in files, `OverlayKnowledgeBase` for such rows with edits on top.
    """

    @property
    def soft_labels(self) -> SoftLabels:
        """The soft labels of all rows."""

    @property
    def pins(self) -> NDArray[np.bool_] | None:
        """Which rows are pinned, bool over all rows; None if no row is. A pinned row decides what its own text gets."""

    @property
    def new_label_odds(self) -> float:
        """Factor on the odds of the labels that the student was not trained on."""

    @property
    def config(self) -> IndexConfig:
        """The index's parameters."""

    @property
    def ndim(self) -> int:
        """Dimensions of a key."""

    @property
    def num_labels(self) -> int:
        """Number of labels, c."""

    @property
    def keeps_texts(self) -> bool:
        """Whether the rows' texts are kept."""

    @property
    def digests(self) -> TextDigests | None:
        """Digests of the rows' texts, if they are kept instead of the texts."""

    def __len__(self) -> int:
        """Number of rows that a search can find."""

    def search(self, query: NDArray[np.float32], k: int) -> SearchResult:
        """The ``min(k, n)`` rows whose keys are most similar to ``query`` float32 [d], best first."""

    def search_many(
        self, queries: NDArray[np.float32], k: int, threads: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """`search` for each of ``queries`` [m, d]: rows int64 and similarities float32, both [m, min(k, n)]."""

    def merge_edits(self, found: SearchResult, query: NDArray[np.float32], k: int) -> SearchResult:
        """The rows most similar to ``query``, from the result of an exact search of the rows without edits.

        Args:
            found: the most similar rows of the last compaction, as many as there are up to ``k``.
            query: float32 [d].
            k: number of rows.
        """

    def id(self, row: int) -> int:
        """The row's id."""

    def label(self, row: int) -> int:
        """The row's gold label as an index into the labels, -1 for none."""

    def gold(self) -> NDArray[np.int32]:
        """The gold labels of all rows, -1 for none."""

    def text(self, row: int) -> str | tuple[str, str] | None:
        """The row's text or pair; None if it is not kept."""

    def text_digest(self, row: int) -> str | None:
        """The digest of the row's text, 64 hexadecimal digits; None if digests are not kept."""

    def rows_of(self, text: str | tuple[str, str]) -> list[int]:
        """The rows with exactly this text or pair, in order.

        Raises:
            UsageError: neither texts nor digests are kept.
        """

    def nbytes(self) -> dict[str, int]:
        """Bytes of each part in the files: ``index``, ``soft_labels``, ``rows``, ``texts`` (or their digests)."""
