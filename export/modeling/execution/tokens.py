"""Rows as token ids: tokenized once with the runtime's tokenizer, and batched by length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoTokenizer
from transformers.trainer_pt_utils import get_length_grouped_indices

from ....errors import ModelError
from ....kb.storage.atomic import atomic_write
from ....runtime.data import Split
from ....runtime.inference.text.tokenizer import TextTokenizer
from ..checkpoint import file_of, load_config, transformer_of
from ..encoder import padding_id, takes_token_types
from .seeds import mix_seed


def save_tokenizer(model: str, folder: Path) -> tuple[str, ...]:
    """Write a model's tokenizer as ``folder/tokenizer.json``, the only tokenizer file of a run.

    Added tokens for which the model has no embedding are left out: they are then split as ordinary text.

    Args:
        model: hub id or folder.
        folder: folder of the new file.

    Returns:
        The added tokens that were left out.

    Raises:
        ModelError: the model has no tokenizer, no fast one, or its vocabulary is larger than the model's.
    """
    text, size = _tokenizer_json(model), load_config(model).vocab_size
    content = json.loads(text)
    added = content.get("added_tokens") or []
    beyond = [token for token in added if token["id"] >= size]
    if beyond:
        content["added_tokens"] = [token for token in added if token["id"] < size]
        text = json.dumps(content, ensure_ascii=False)
    with atomic_write(folder / "tokenizer.json") as file:
        file.write(text)
    largest = max(Tokenizer.from_str(text).get_vocab().values(), default=0)
    if largest >= size:
        raise ModelError(
            "the tokenizer has more tokens than the model has embeddings",
            path=model,
            found=f"token id {largest}",
            expected=f"ids below {size}",
            remedy="Use the tokenizer that the model was trained with.",
        )
    return tuple(token["content"] for token in beyond)


def _tokenizer_json(model: str) -> str:
    """Return the text of a model's tokenizer.json, converted from its vocabulary files if it has none.

    Raises:
        ModelError: it has no tokenizer, or no fast one.
    """
    for name in (transformer_of(model), model):
        path = file_of(name, "tokenizer.json")
        if path is not None:
            return path.read_text(encoding="utf-8")
    try:
        tokenizer = AutoTokenizer.from_pretrained(transformer_of(model), trust_remote_code=False)
        files = sorted(set(tokenizer.vocab_files_names.values()))
        if any(file_of(transformer_of(model), name) for name in files):  # else transformers makes an empty tokenizer
            text: str = tokenizer.backend_tokenizer.to_str()
            return text
        found, cause = "none of " + ", ".join(files), None
    except Exception as error:
        found, cause = (str(error).splitlines() or [type(error).__name__])[0], error
    raise ModelError(
        "the model's tokenizer cannot be loaded",
        path=model,
        found=found,
        expected="a fast tokenizer (tokenizer.json), or a vocabulary that transformers converts to one",
        remedy="Save the tokenizer to the model's folder: AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER).",
    ) from cause


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
    return TokenRows(tokenizer, split.inputs(), takes_token_types(config), padding_id(config))


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
