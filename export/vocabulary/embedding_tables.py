"""A student's tables of word pieces and of positions, with rows left out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

from ...errors import ModelError
from ..modeling.encoder import EncoderClassifier
from .prune import Pruned
from .tokenizer_pieces import KEEP_WHOLE

# Model types whose position table is read from the first position on, and by nothing but the position.
_ABSOLUTE = ("albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta")
_TRACED = 16  # tokens of the text that the exporter follows through the model
_TOLERANCE = 1e-5


def fewer_pieces(student: EncoderClassifier, pruned: Pruned) -> EncoderClassifier:
    """The student for a pruned tokenizer: the kept rows of its table of pieces, its configuration's ids as new.

    Raises:
        ModelError: the table has no row for a piece that must stay.
    """
    name, table = word_table(student)
    if max(pruned.old_ids) >= table.num_embeddings:
        raise ModelError(
            "the tokenizer has pieces that the model does not know",
            found=f"id {max(pruned.old_ids)}",
            expected=f"ids below {table.num_embeddings}",
            remedy=KEEP_WHOLE,
        )
    config = copy.deepcopy(student.encoder.config)
    config.vocab_size = len(pruned.old_ids)
    new_ids = pruned.new_ids()
    for key, value in _token_ids(config).items():
        setattr(config, key, [new_ids.get(old) for old in value] if isinstance(value, list) else new_ids.get(value))
    return _with_tables(student, config, {name: table.weight.detach()[list(pruned.old_ids)]})


def fewer_positions(student: EncoderClassifier, max_length: int) -> EncoderClassifier:
    """The student without the rows of its position table that no text of ``max_length`` tokens reads.

    The same student where its positions are no table of one row each, or where none can be left out.
    """
    config = student.encoder.config
    table = getattr(getattr(student.encoder, "embeddings", None), "position_embeddings", None)
    absolute = getattr(config, "position_embedding_type", "absolute") == "absolute"
    if config.model_type not in _ABSOLUTE or not absolute or not isinstance(table, nn.Embedding):
        return student
    # Where padding has a row of its own, positions begin after it.
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    rows = first + max(max_length, _TRACED)
    if rows >= table.num_embeddings or table.num_embeddings != config.max_position_embeddings:
        return student
    config = copy.deepcopy(config)
    config.max_position_embeddings = rows
    weight = table.weight.detach()[:rows]
    return _with_tables(student, config, {"encoder.embeddings.position_embeddings.weight": weight})


@torch.inference_mode()
def require_unchanged_answers(
    student: EncoderClassifier, smaller: EncoderClassifier, old_ids: Sequence[int], max_length: int
) -> None:
    """Prove that the smaller student answers as the one it was made from, on ``max_length`` tokens of all kinds.

    Args:
        student: with every row.
        smaller: with fewer.
        old_ids: what the smaller one's ids are in the other.
        max_length: the most tokens that either is ever given.

    Raises:
        ModelError: a logit or a component of an embedding differs.
    """
    padding = smaller.encoder.config.pad_token_id  # from which some models count positions
    usable = torch.tensor([new for new in range(len(old_ids)) if new != padding])
    new = usable[torch.linspace(0, len(usable) - 1, max_length).long()].unsqueeze(0)
    old = torch.tensor(old_ids)[new]
    mask = torch.ones_like(new)
    found, wanted = smaller(input_ids=new, attention_mask=mask), student(input_ids=old, attention_mask=mask)
    for name, here, there in zip(wanted._fields, found, wanted, strict=True):
        if not torch.allclose(here, there, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise ModelError(
                "the student answers otherwise when rows of its tables are left out",
                found=f"{name} {float((here - there).abs().max()):.3g} apart",
                expected="the same answers",
                remedy="Start the student from another model: --student MODEL.",
            )


def word_table(student: EncoderClassifier) -> tuple[str, nn.Embedding]:
    """The table of pieces, with its name in the student's state."""
    table = student.encoder.get_input_embeddings()
    name = next(name for name, module in student.named_modules() if module is table)
    return f"{name}.weight", table


def special_ids(student: EncoderClassifier) -> set[int]:
    """The ids of special tokens that the student's configuration names."""
    values = _token_ids(student.encoder.config).values()
    return {old for value in values for old in (value if isinstance(value, list) else [value])}


def _with_tables(student: EncoderClassifier, config: Any, tables: Mapping[str, Tensor]) -> EncoderClassifier:
    """The student again, made from another configuration and with other tables."""
    made = EncoderClassifier(AutoModel.from_config(config, dtype=torch.float32), student.head)
    made.load_state_dict({**student.state_dict(), **tables}, strict=False)  # but for a pooler, which nothing reads
    return made.eval()


def _token_ids(config: Any) -> dict[str, Any]:
    """The configuration's ids of special tokens, pad_token_id and so on, where it has any."""
    return {key: value for key, value in vars(config).items() if key.endswith("_token_id") and value is not None}
