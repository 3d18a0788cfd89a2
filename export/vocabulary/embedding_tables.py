"""Prune a student's embedding tables of tokens and positions."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

from ...errors import ModelError
from ..modeling.encoder import EncoderClassifier
from .model_tokens import KEEP_ALL
from .prune import Pruned

# Model types that index the position table by the position alone, from its first row.
_ABSOLUTE = ("albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta")
_POSITIONS = "encoder.embeddings.position_embeddings.weight"
_TRACED = 16  # tokens of the text with which the exporter traces the model
_TOLERANCE = 1e-5


def prune_tables(student: EncoderClassifier, tokens: Pruned | None, positions: int | None = None) -> EncoderClassifier:
    """Make a student with fewer rows in its tables of tokens and positions; ids in its configuration are renumbered.

    Args:
        student: the student; not changed.
        tokens: the pruned tokenizer; rows of its tokens are kept. None keeps all.
        positions: number of positions to keep, the first ones; None keeps all.

    Returns:
        The same object if all rows are kept.

    Raises:
        ModelError: the table has no row for a kept token.
    """
    if tokens is None and positions is None:
        return student
    config = copy.deepcopy(student.encoder.config)
    tables: dict[str, Tensor] = {}
    if tokens is not None:
        name, table = token_table(student)
        if max(tokens.old_ids) >= table.num_embeddings:
            raise ModelError(
                "the tokenizer has tokens that the model does not know",
                found=f"id {max(tokens.old_ids)}",
                expected=f"ids below {table.num_embeddings}",
                remedy=KEEP_ALL,
            )
        config.vocab_size = len(tokens.old_ids)
        new_ids = tokens.new_ids()
        for key, value in _token_ids(config).items():
            left = [new_ids[old] for old in value if old in new_ids] if isinstance(value, list) else new_ids.get(value)
            setattr(config, key, left)
        tables[name] = table.weight.detach()[list(tokens.old_ids)]
    if positions is not None:
        config.max_position_embeddings = positions
        tables[_POSITIONS] = student.encoder.embeddings.position_embeddings.weight.detach()[:positions]
    return _with_tables(student, config, tables)


def positions_needed(student: EncoderClassifier, max_length: int) -> int | None:
    """Return the number of rows of the position table that texts of ``max_length`` tokens use.

    None if the model has no table with one row per position, or if all rows are needed.
    """
    config = student.encoder.config
    table = getattr(getattr(student.encoder, "embeddings", None), "position_embeddings", None)
    absolute = getattr(config, "position_embedding_type", "absolute") == "absolute"
    if config.model_type not in _ABSOLUTE or not absolute or not isinstance(table, nn.Embedding):
        return None
    # If the padding has its own row, positions begin after it.
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    rows: int = first + max(max_length, _TRACED)
    if rows >= table.num_embeddings or table.num_embeddings != config.max_position_embeddings:
        return None
    return rows


@torch.inference_mode()
def require_unchanged_answers(
    student: EncoderClassifier, smaller: EncoderClassifier, old_ids: Sequence[int], max_length: int
) -> None:
    """Check that a pruned student gives the same outputs, on ``max_length`` tokens from the whole vocabulary.

    Args:
        student: the student with all rows.
        smaller: the pruned student; nothing is checked if it is the same object.
        old_ids: the pruned student's ids in the full vocabulary.
        max_length: largest number of tokens of a text.

    Raises:
        ModelError: a logit or a component of an embedding differs.
    """
    if smaller is student:
        return
    padding = smaller.encoder.config.pad_token_id  # some models count positions from it
    usable = torch.tensor([new for new in range(len(old_ids)) if new != padding])
    new = usable[torch.linspace(0, len(usable) - 1, max_length).long()].unsqueeze(0)
    old = torch.tensor(old_ids)[new]
    mask = torch.ones_like(new)
    found, expected = smaller(input_ids=new, attention_mask=mask), student(input_ids=old, attention_mask=mask)
    for name, here, there in zip(expected._fields, found, expected, strict=True):
        if not torch.allclose(here, there, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise ModelError(
                "the pruned student gives other outputs than the full student",
                found=f"a difference of {float((here - there).abs().max()):.3g} in {name}",
                expected="the same outputs",
                remedy="Start the student from another model: --student MODEL.",
            )


def token_table(student: EncoderClassifier) -> tuple[str, nn.Embedding]:
    """Return the name of the table of token embeddings in the student's state dict, and the table."""
    table = student.encoder.get_input_embeddings()
    name = next(name for name, module in student.named_modules() if module is table)
    return f"{name}.weight", table


def special_ids(student: EncoderClassifier) -> set[int]:
    """Return the ids of special tokens in the student's configuration."""
    values = _token_ids(student.encoder.config).values()
    return {old for value in values for old in (value if isinstance(value, list) else [value])}


def _with_tables(student: EncoderClassifier, config: Any, tables: Mapping[str, Tensor]) -> EncoderClassifier:
    """Copy the student with another configuration and other tables."""
    made = EncoderClassifier(AutoModel.from_config(config, dtype=torch.float32), student.head)
    made.load_state_dict({**student.state_dict(), **tables}, strict=False)  # only an unused pooler is missing
    return made.eval()


def _token_ids(config: Any) -> dict[str, Any]:
    """Return the configuration's ids of special tokens, such as pad_token_id."""
    return {key: value for key, value in vars(config).items() if key.endswith("_token_id") and value is not None}
