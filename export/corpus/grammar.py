"""The template language of the demo corpus: a grammar small enough to read in one sitting.

A template is a line of text with three constructs, which nest::

    {wake|get}      one of the alternatives
    [please]        there or not, half the time each; [a|b] is [{a|b}]
    <time>          a slot, filled from a table of templates

Drawing uses `random.Random.random` and nothing else: it is the one method whose sequence Python promises to keep for a
given seed, so a corpus is the same on every version and machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

T = TypeVar("T")

# A slot used twice in a sentence ("from <city> to <city>") is redrawn this often before it may repeat itself.
_DISTINCT_TRIES = 8

_SPECIAL = frozenset("{}[]<>|")

# A filler may bring its own article ("the lakers") or begin with a vowel, which the template cannot know.
_TWO_ARTICLES = re.compile(r"\b(a|an|the|my) (?:the|an?)\b")
_BEFORE_VOWEL = re.compile(r"\ba(?= (?:(?!one\b|eu|u[2ns])[aeiou]|hour|8|11\b|18\b))")


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of `options` (at least one), uniformly."""
    return options[int(rng.random() * len(options))]


def tidy(text: str) -> str:
    """`text` with single spaces, none at its ends, and the articles put right (an hour, the lakers game)."""
    text = " ".join(text.split())
    text = _TWO_ARTICLES.sub(r"\1", text)
    return _BEFORE_VOWEL.sub("an", text)


@dataclass(frozen=True, slots=True)
class Text:
    """Words that stand as they are."""

    words: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A place to be filled from the slot table."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several nodes; an optional part is a choice whose first option is empty."""

    options: tuple[Node, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """Nodes one after the other."""

    parts: tuple[Node, ...]


Node = Text | Slot | Choice | Run


class _Parser:
    """Recursive descent over one template."""

    def __init__(self, template: str) -> None:
        self.template = template
        self.at = 0

    def parse(self) -> Node:
        node = self._run(closing="")
        if self.at != len(self.template):
            raise self._error(f"unexpected {self.template[self.at]!r}")
        return node

    def _run(self, closing: str) -> Node:
        parts: list[Node] = []
        stops = closing + "|" if closing else ""
        while self.at < len(self.template):
            char = self.template[self.at]
            if char in stops:
                break
            if char == "{":
                parts.append(Choice(self._alternatives("}")))
            elif char == "[":
                parts.append(Choice(self._alternatives("]"), optional=True))
            elif char == "<":
                parts.append(self._slot())
            elif char in _SPECIAL:
                raise self._error(f"unexpected {char!r}")
            else:
                parts.append(self._text())
        return parts[0] if len(parts) == 1 else Run(tuple(parts))

    def _alternatives(self, closing: str) -> tuple[Node, ...]:
        opened = self.at
        self.at += 1
        options = [self._run(closing)]
        while self._peek() == "|":
            self.at += 1
            options.append(self._run(closing))
        if self._peek() != closing:
            self.at = opened
            raise self._error(f"{self.template[opened]!r} is never closed")
        self.at += 1
        return tuple(options)

    def _slot(self) -> Slot:
        end = self.template.find(">", self.at)
        name = self.template[self.at + 1 : end] if end > 0 else ""
        if not name.isidentifier():
            raise self._error("expected a slot such as <time>")
        self.at = end + 1
        return Slot(name)

    def _text(self) -> Text:
        start = self.at
        while self.at < len(self.template) and self.template[self.at] not in _SPECIAL:
            self.at += 1
        return Text(self.template[start : self.at])

    def _peek(self) -> str:
        return self.template[self.at : self.at + 1]

    def _error(self, problem: str) -> ValueError:
        return ValueError(f"template {self.template!r}, character {self.at + 1}: {problem}")


def parse(template: str) -> Node:
    """The tree of `template`.

    Raises:
        ValueError: brackets that do not match, a lone ``|`` or a malformed slot; names the template and the character.
    """
    return _Parser(template).parse()


def slot_names(node: Node) -> Iterator[str]:
    """The names of all slots in `node`, in order, with repetitions."""
    if isinstance(node, Slot):
        yield node.name
    elif isinstance(node, Choice | Run):
        for child in node.options if isinstance(node, Choice) else node.parts:
            yield from slot_names(child)


def skeletons(node: Node) -> Iterator[str]:
    """Every phrasing of `node` with its slots left open (``wake me at <time>``), untidied, with repetitions."""
    if isinstance(node, Text):
        yield node.words
    elif isinstance(node, Slot):
        yield f"<{node.name}>"
    elif isinstance(node, Choice):
        if node.optional:
            yield ""
        for option in node.options:
            yield from skeletons(option)
    else:
        yield from _skeletons_of_run(node.parts)


def _skeletons_of_run(parts: tuple[Node, ...]) -> Iterator[str]:
    if not parts:
        yield ""
        return
    tails = list(_skeletons_of_run(parts[1:]))
    for head in skeletons(parts[0]):
        for tail in tails:
            yield head + tail


@dataclass(slots=True)
class Speaker:
    """Draws sentences from templates, with one table of slots and one source of randomness."""

    rng: Random
    slots: Mapping[str, Sequence[Node]]
    _said: dict[str, set[str]] = field(default_factory=dict)

    def say(self, node: Node) -> str:
        """One sentence of `node`, with single spaces. A slot that comes twice is filled differently each time."""
        self._said.clear()
        return tidy(self._draw(node))

    def _draw(self, node: Node) -> str:
        if isinstance(node, Text):
            return node.words
        if isinstance(node, Slot):
            return self._fill(node.name)
        if isinstance(node, Choice):
            if node.optional and self.rng.random() < 0.5:
                return ""
            return self._draw(pick(self.rng, node.options))
        return "".join([self._draw(part) for part in node.parts])

    def _fill(self, name: str) -> str:
        said = self._said.setdefault(name, set())
        filling = self._draw(pick(self.rng, self.slots[name]))
        for _ in range(_DISTINCT_TRIES):
            if filling not in said:
                break
            filling = self._draw(pick(self.rng, self.slots[name]))
        said.add(filling)
        return filling
