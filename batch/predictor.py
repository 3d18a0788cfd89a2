"""`Predictor`: a picklable class that adds answers to a batch of rows, for Ray Data, Daft, Spark and others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa

from ..errors import ColumnError, DataError, ReaugkdError, UsageError
from ..kb.storage.ed25519 import PublicKey
from ..runtime.data.cells import check_text
from ..runtime.decision.abstention_goal import Abstain
from ..runtime.inference.prediction import Prediction
from ..runtime.inference.retrieval_policy import RetrievalMode
from ..runtime.inference.text.inputs import Text
from ..runtime.runtime import Runtime
from .answers import AnswerColumns, as_text, cells_of

Batch = TypeVar("Batch")
OnError = Literal["record", "raise"]


class Predictor:
    """Adds the answers of a bundle to batches of rows.

    The bundle is opened once, when the object is made; a pickle holds the arguments, and unpickling opens the bundle
    again. The added columns are ``label`` (string), ``score`` (float64, bit for bit the probability that
    `Runtime.predict` gives the label), ``retrieved`` and ``abstained`` (bool), and ``error`` (string). A row whose text
    cannot be used has an ``error``, and nulls in the others. As in every file that the project reads, a cell such as
    ``nan`` or ``<NA>`` is a missing text.

    Args:
        bundle: the bundle's folder.
        text: the column of the text, or of the first text of a pair.
        text_pair: the column of the second text; None for a bundle of single texts.
        prefix: the beginning of the names of the added columns.
        top_k: also add ``labels`` and ``scores``: lists of the most probable labels, so many, and their probabilities.
        abstain: same as `Runtime.predict`; without it, no row is abstained from.
        retrieval: same as `Runtime.open`.
        threads: texts of a batch that are answered side by side.
        on_error: ``"record"``, or ``"raise"`` to raise the error of the first row that cannot be answered.
        require_signature: same as `Runtime.open`.
        follow_links: same as `Runtime.open`.

    Raises:
        BundleError: same as `Runtime.open`.
        UsageError: same as `Runtime.open`; or an argument does not fit the bundle.

    Example:
        >>> predictor = Predictor("bundle", text="question")
        >>> predictor({"question": np.array(["wake me at seven"])})["label"]
        array(['alarm'], dtype=object)
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        *,
        text: str = "text",
        text_pair: str | None = None,
        prefix: str = "",
        top_k: int | None = None,
        abstain: Abstain | str | None = None,
        retrieval: RetrievalMode = "always",
        threads: int | None = 1,
        on_error: OnError = "record",
        require_signature: PublicKey | bytes | str | os.PathLike[str] | None = None,
        follow_links: bool = False,
    ) -> None:
        if on_error not in ("record", "raise"):
            raise UsageError("on_error is unknown", found=repr(on_error), expected="'record' or 'raise'")
        self.columns = AnswerColumns(prefix, top_k)
        self.text, self.text_pair, self.abstain, self.on_error = text, text_pair, abstain, on_error
        self.runtime = Runtime.open(
            bundle, threads, retrieval, require_signature=require_signature, follow_links=follow_links
        )
        self.runtime.predict_many((), abstain=abstain)  # refuses an impossible goal
        pair = self.runtime.manifest.text_pair
        if pair != (text_pair is not None):
            raise UsageError(
                f"this model reads {'pairs of texts' if pair else 'single texts'}",
                path=bundle,
                found=f"text_pair={text_pair!r}",
                expected="the name of the second column" if pair else "text_pair=None",
            )

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with the added columns, as the kind that it is.

        Args:
            batch: a ``pyarrow.Table`` or ``RecordBatch``, a dict of column name -> numpy array [n], or a pandas
                ``DataFrame``.

        Raises:
            ColumnError: a text column is missing, or a column has the name of an added one.
            UsageError: the batch is of another kind, or its columns are no arrays or differ in length.
            ReaugkdError: with ``on_error="raise"``, the error of the first row that cannot be answered.
        """
        frame = _kind_of(batch)
        names = frame.names()
        self.columns.require_free(names)
        wanted = [self.text] if self.text_pair is None else [self.text, self.text_pair]
        cells = []
        for name in wanted:
            if names.count(name) != 1:
                found = f"the columns {', '.join(map(repr, names))}"
                raise ColumnError("the batch has no such column", column=name, found=found, expected=f"one {name!r}")
            cells.append(frame.cells(name))
        items = [self._text(row) for row in zip(*cells, strict=True)]
        arrays = self.columns.arrays(self.answers(items))
        return frame.extended(self.columns, arrays)  # type: ignore[no-any-return]

    def answers(self, texts: Iterable[Text | ReaugkdError]) -> Iterator[Prediction | ReaugkdError]:
        """The answers to texts in order, with an error in the place of a text that has one.

        Raises:
            ReaugkdError: with ``on_error="raise"``, the first error.
        """
        for _, answer in self.runtime.predict_keyed(((None, text) for text in texts), self.abstain):
            if self.on_error == "raise" and isinstance(answer, ReaugkdError):
                raise answer
            yield answer

    def _text(self, cells: tuple[object, ...]) -> Text | ReaugkdError:
        names = (self.text, self.text_pair)
        try:
            found = [check_text(as_text(cell), "", 0, name) for cell, name in zip(cells, names, strict=False)]
        except DataError as error:
            return error.at(path=None, row=None)
        return found[0] if len(found) == 1 else (found[0], found[1])


class _Arrow:
    """A table or record batch."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def names(self) -> list[str]:
        return list(self._batch.schema.names)

    def cells(self, name: str) -> list[object]:
        return cells_of(self._batch.column(name))

    def extended(self, columns: AnswerColumns, arrays: list[Any]) -> Any:
        schema = self._batch.schema
        for name, kind in columns.fields:
            schema = schema.append(pa.field(name, kind))
        return type(self._batch).from_arrays([*self._batch.columns, *arrays], schema=schema)


class _Arrays:
    """A dict of numpy arrays."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self._batch = batch
        for name, values in batch.items():
            if isinstance(values, str | bytes) or np.ndim(values) == 0:
                raise UsageError(f"the column {name!r} is no array", found=repr(values), expected="a numpy array [n]")
        lengths = {name: len(values) for name, values in batch.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name!r}: {length}" for name, length in lengths.items())
            raise UsageError("the columns differ in length", found=found, expected="one length")

    def names(self) -> list[str]:
        return list(self._batch)

    def cells(self, name: str) -> list[object]:
        return list(np.asanyarray(self._batch[name]).tolist())  # a masked cell is None

    def extended(self, columns: AnswerColumns, arrays: list[Any]) -> Any:
        return {**self._batch, **_numpy(columns, arrays)}


class _Frame:
    """A pandas DataFrame; pandas is not imported here."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def names(self) -> list[str]:
        return list(self._batch.columns)

    def cells(self, name: str) -> list[object]:
        missing = self._batch[name].isna().tolist()  # None, NaN and NA alike
        return [None if gone else cell for cell, gone in zip(self._batch[name].tolist(), missing, strict=True)]

    def extended(self, columns: AnswerColumns, arrays: list[Any]) -> Any:
        return self._batch.assign(**_numpy(columns, arrays))


def _kind_of(batch: object) -> _Arrow | _Arrays | _Frame:
    if isinstance(batch, pa.Table | pa.RecordBatch):
        return _Arrow(batch)
    if isinstance(batch, dict):
        return _Arrays(batch)
    if any(one.__name__ == "DataFrame" and one.__module__.partition(".")[0] == "pandas" for one in type(batch).mro()):
        return _Frame(batch)
    raise UsageError(
        "the batch is of an unknown kind",
        found=f"{type(batch).__module__}.{type(batch).__qualname__}",
        expected="a pyarrow Table or RecordBatch, a dict of numpy arrays, or a pandas DataFrame",
    )


def _numpy(columns: AnswerColumns, arrays: list[Any]) -> dict[str, Any]:
    """The columns as pyarrow converts them: objects where a value can be missing, NaN for a missing score."""
    pairs = zip(columns.fields, arrays, strict=True)
    return {name: array.to_numpy(zero_copy_only=False) for (name, _), array in pairs}
