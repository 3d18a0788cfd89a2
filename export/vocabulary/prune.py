"""Prune a tokenizer.json: texts whose tokens are kept tokenize as before, and all other texts can be tokenized."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ...errors import ModelError
from ..modeling.execution.progress import progress
from .model_tokens import KEEP_ALL, model_tokens


@dataclass(frozen=True)
class Pruned:
    """A pruned tokenizer of n tokens.

    Args:
        tokenizer: the contents of its tokenizer.json.
        old_ids: [n], the id of each token in the full tokenizer, ascending except for added tokens.
    """

    tokenizer: str
    old_ids: tuple[int, ...]

    def new_ids(self) -> dict[int, int]:
        """Map each kept id of the full tokenizer to its id in this one."""
        return {old: new for new, old in enumerate(self.old_ids)}


class Vocabulary:
    """The vocabulary of a tokenizer: its tokens and added tokens.

    Args:
        path: a tokenizer.json.

    Raises:
        ModelError: this tokenizer cannot be pruned safely (`model_tokens`).
    """

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokens = model_tokens(self._tokenizer)
        self._content: dict[str, Any] = json.loads(self._tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def ids_of(self, inputs: Sequence[str | tuple[str, str]], label: str) -> list[frozenset[int]]:
        """Return the ids in each of n texts or pairs, without truncation; ``label`` labels the progress bar."""
        found = []
        with progress(label, len(inputs), "row") as advance:
            for item in inputs:
                found.append(frozenset(self._tokenizer.encode(*((item,) if isinstance(item, str) else item)).ids))
                advance(1)
        return found

    def candidates(self) -> list[int]:
        """Return the ids of tokens that can occur in a text, the most frequent in the tokenizer's training first."""
        ids = map(self._tokenizer.token_to_id, self._tokens.ranking)
        return [number for number in ids if number is not None]

    def pruned(self, used: Iterable[int], at_least: int = 0, others: Iterable[int] = ()) -> Pruned:
        """Make a tokenizer with the used tokens, the required ones, and others up to a number.

        Args:
            used: ids that must be kept.
            at_least: number of tokens to keep, filled up with ``others``; more are kept if more are required.
            others: ids that may be added, the best first.

        Raises:
            ModelError: the tokenizer's ids cannot be renumbered.
        """
        return self._only(self._kept(used, at_least, others))

    def kept_ids(self, used: Iterable[int], at_least: int = 0, others: Iterable[int] = ()) -> frozenset[int]:
        """Return the ids that `pruned` keeps."""
        ids = map(self._tokenizer.token_to_id, self._kept(used, at_least, others))
        return frozenset(number for number in ids if number is not None)

    def _kept(self, used: Iterable[int], at_least: int, others: Iterable[int]) -> set[str]:
        name = self._tokenizer.id_to_token
        kept = self._tokens.with_parts({*self._tokens.required, *filter(None, map(name, {*used, *self._named()}))})
        for other in others:
            if len(kept) >= at_least:
                break
            kept |= self._tokens.with_parts(filter(None, [name(other)]))
        return kept

    def _named(self) -> set[int]:
        """Return the ids in tokenizer.json outside its vocabulary."""
        ids = {token["id"] for token in self._content["added_tokens"]}

        def note(old: int) -> int:
            ids.add(old)
            return old

        _with_ids(self._content["post_processor"], note)
        if (padding := self._content["padding"]) is not None:
            ids.add(padding["pad_id"])
        return ids

    def _only(self, kept: set[str]) -> Pruned:
        own = self._tokenizer.get_vocab(with_added_tokens=False)
        id_of = self._tokenizer.get_vocab(with_added_tokens=True)
        # Added tokens that are not in the model are numbered after its last token.
        order = sorted(kept, key=lambda token: (token not in own, id_of[token]))
        ids = {token: number for number, token in enumerate(order)}
        new_ids = {id_of[token]: number for token, number in ids.items()}

        def renumber(old: int) -> int:
            if old not in new_ids:
                raise _not_renumbered(f"id {old}, which no token has")
            return new_ids[old]

        tokens = [{**token, "id": ids[token["content"]]} for token in self._content["added_tokens"]]
        content = {
            **self._content,
            "added_tokens": sorted(tokens, key=lambda token: int(token["id"])),
            "post_processor": _with_ids(self._content["post_processor"], renumber),
            "model": self._tokens.write({token: number for token, number in ids.items() if token in own}),
        }
        if (padding := self._content["padding"]) is not None:
            content["padding"] = {**padding, "pad_id": renumber(padding["pad_id"])}
        made = json.dumps(content, ensure_ascii=False)
        if Tokenizer.from_str(made).get_vocab(with_added_tokens=True) != ids:
            raise _not_renumbered("added tokens with other ids than expected")
        return Pruned(made, tuple(id_of[token] for token in order))


def _not_renumbered(found: str) -> ModelError:
    return ModelError("the tokenizer's tokens cannot be renumbered", found=found, remedy=KEEP_ALL)


def _with_ids(processor: Any, change: Callable[[int], int]) -> Any:
    """Copy a post-processor with every id changed."""
    if processor is None:
        return None
    kind = processor["type"]
    if kind == "Sequence":
        return {**processor, "processors": [_with_ids(one, change) for one in processor["processors"]]}
    if kind == "TemplateProcessing":
        tokens = processor["special_tokens"].items()
        changed = {name: {**token, "ids": [change(old) for old in token["ids"]]} for name, token in tokens}
        return {**processor, "special_tokens": changed}
    if kind in ("BertProcessing", "RobertaProcessing"):
        ends = {end: [processor[end][0], change(processor[end][1])] for end in ("sep", "cls")}
        return {**processor, **ends}
    return processor
