"""The teacher of a finished run as a function of texts, for a pool of processes or an engine such as Ray Data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ....runtime.data import Columns
from ....runtime.data.cells import check_text
from ....runtime.data.columns import choose_columns
from ....runtime.decision.blending import softmax_many
from ....runtime.inference.text.tokenizer import TextTokenizer
from ...modeling.encoder import padding_id, takes_token_types
from ...modeling.execution.distributed import processes
from ...modeling.execution.inference import answers_of, require_finite_outputs
from ...modeling.execution.tokens import TokenRows, sorted_batches
from ..finished_run import require_model, run_teacher
from ..run_folder import RunFolder
from .answer_forms import PROBS

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 64


@dataclass(frozen=True)
class RunTeacher:
    """Opens the teacher of a run (`TeacherPredictor`); equal for the same run, in other processes too.

    Attributes:
        run: the run folder.
    """

    run: str

    def __call__(self) -> TeacherPredictor:
        """The teacher."""
        return TeacherPredictor(self.run)


class TeacherPredictor:
    """The teacher of a run. It loads its model on first use, so that it can be pickled for another process.

    Args:
        run_folder: a finished run, which every process that uses the object must see.
        device: of the model, such as ``"cuda:1"``. Default None: the GPU if there is one, else the CPU.

    Attributes:
        labels: the c label names, in the order of the logits; a bundle of the run begins with the same ones.

    Raises:
        DataError: there is no finished run.
        UsageError: the run's teacher is a file of answers.
    """

    def __init__(self, run_folder: str | Path, device: str | None = None) -> None:
        self.run = RunFolder(Path(run_folder))
        self.device = device
        self._description = self.run.describe()
        self.run.require_finished()
        require_model(self.run, self._description)
        self.labels: tuple[str, ...] = tuple(self._description["labels"])
        self._pairs: bool = self._description["data"]["text_pair"]

    @cached_property
    def _model(self) -> nn.Module:
        return run_teacher(self.run, self._description)

    @cached_property
    def _tokenizer(self) -> TextTokenizer:
        return TextTokenizer(self.run.teacher / "tokenizer.json", self._description["recipe"]["max_length"])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_model", "_tokenizer")}

    def logits(self, texts: Sequence[str | tuple[str, str]]) -> NDArray[np.float32]:
        """Return the teacher's logits for n texts or pairs, float32 [n, c]; the order of the texts changes nothing.

        Raises:
            ModelError: the teacher cannot be loaded, or an output is not finite.
        """
        model = self._model
        config: Any = model.encoder.config  # type: ignore[union-attr]
        rows = TokenRows(self._tokenizer, texts, takes_token_types(config), padding_id(config))
        found = np.empty((len(texts), len(self.labels)), np.float32)
        device = torch.device(self.device) if self.device else processes().device
        for batch, answers in answers_of(model, rows, sorted_batches(rows.lengths(), _BATCH), device):
            found[batch] = require_finite_outputs(answers, "the run's teacher").logits.cpu().numpy()
        return found

    def __call__(self, table: pa.Table) -> pa.Table:
        """Answer the rows of a pyarrow table, whose text columns are found by their usual names.

        Returns:
            The text columns, and ``probs``, a struct of a float32 for each label: the form of `--teacher-outputs`.

        Raises:
            ColumnError: there is no text column.
            TextError: a text is missing or cannot be used.
            ModelError: same as ``logits``.
        """
        import pyarrow as pa

        source = "the table"
        columns = choose_columns(table.column_names, Columns(), source, pair=self._pairs)
        names = [columns.text, *([columns.pair] if columns.pair else [])]
        cells = [
            [check_text(text, source, row, name) for row, text in enumerate(table[name].to_pylist(), 1)]
            for name in names
        ]
        texts = cells[0] if len(cells) == 1 else list(zip(*cells, strict=True))
        shares = softmax_many(self.logits(texts).astype(np.float64)).astype(np.float32)
        probs = pa.StructArray.from_arrays(list(map(pa.array, shares.T)), names=list(self.labels))
        return table.select(names).append_column(PROBS, probs)
