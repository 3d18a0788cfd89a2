"""Rows as token ids: tokenized once with the runtime's tokenizer, and batched by length."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer
from transformers.trainer_pt_utils import get_length_grouped_indices

from ...errors import ModelError
from ...kb.storage.atomic import atomic_write
from ...runtime.data import Split
from ...runtime.inference.tokenizer import TextTokenizer
from .encoder import takes_token_types
from .seeds import mix_seed


def save_tokenizer(model: str, folder: Path) -> Path:
    """Write a model's tokenizer as ``tokenizer.json``, the only tokenizer file of a run.

    Args:
        model: hub id or folder.
        folder: folder of the new file.

    Returns:
        The path of the file.

    Raises:
        ModelError: the model has no fast tokenizer.
    """
    path = folder / "tokenizer.json"
    source = Path(model) / "tokenizer.json"
    if source.is_file():
        with atomic_write(path, "wb") as file, source.open("rb") as original:
            shutil.copyfileobj(original, file)
        return path
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, use_fast=True)
        text = tokenizer.backend_tokenizer.to_str()
    except Exception as error:
        raise ModelError(
            "the model's tokenizer cannot be loaded",
            path=model,
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            expected="a fast tokenizer (tokenizer.json)",
        ) from error
    with atomic_write(path) as file:
        file.write(text)
    return path


class TokenRows:
    """The token ids of n rows, ready to be batched.

    Args:
        tokenizer: the runtime's tokenizer.
        inputs: n texts, or pairs of texts.
        with_types: whether the model uses token_type_ids.
        pad: id of the padding.

    Attributes:
        truncated: number of rows of which only the beginning fits into ``max_length`` tokens.
    """

    def __init__(
        self, tokenizer: TextTokenizer, inputs: Sequence[str | tuple[str, str]], with_types: bool, pad: int
    ) -> None:
        encodings = [tokenizer.encode(*((item,) if isinstance(item, str) else item)) for item in inputs]
        self.ids = [torch.tensor(encoding.ids) for encoding in encodings]
        self.types = [torch.tensor(encoding.type_ids) for encoding in encodings] if with_types else None
        self.truncated = sum(map(tokenizer.truncated, encodings))
        self.pad = pad

    def __len__(self) -> int:
        return len(self.ids)

    def lengths(self) -> list[int]:
        """Return the number of tokens of each row."""
        return [len(row) for row in self.ids]

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return rows as input_ids, attention_mask and token_type_ids, each [number of rows, longest of them]."""
        ids = [self.ids[row] for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.pad)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        inputs = {"input_ids": padded, "attention_mask": mask}
        if self.types is not None:
            types = [self.types[row] for row in rows]
            inputs["token_type_ids"] = torch.nn.utils.rnn.pad_sequence(types, batch_first=True)
        return inputs


def token_rows(folder: Path, split: Split, config: Any, max_length: int) -> TokenRows:
    """Tokenize the rows of a split.

    Args:
        folder: contains the model's tokenizer.json.
        split: the rows.
        config: the model's configuration.
        max_length: largest number of tokens; longer texts are truncated.
    """
    tokenizer = TextTokenizer(folder / "tokenizer.json", max_length)
    return TokenRows(tokenizer, split.inputs(), takes_token_types(config), config.pad_token_id or 0)


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return an epoch's batches: every row once, rows of similar length together, in random order by (seed, epoch).

    A last batch of one row is added to the batch before it, because relational and contrastive losses compare rows.

    Args:
        lengths: number of tokens of each row.
        batch_size: rows per batch.
        seed: of the run.
        epoch: number of the epoch.
    """
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch))
    order = get_length_grouped_indices(list(lengths), batch_size, generator=generator)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2].extend(batches.pop())
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def sorted_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return batches for inference, the longest rows first, so that the first batch needs the most memory."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
