"""From templates to rows: how many of each intent, drawn without a repetition, misspelt here and there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from ...errors import UsageError
from ...runtime.data import Dataset, Split
from .catalogue import INTENTS
from .grammar import Node, Speaker, parse
from .intent import Intent
from .noise import misspell
from .slots import slot_table

MISSPELT_SHARE = 0.12

# What is said around a request without changing it, and how often.
_BEFORE = parse("{hey|okay|ok|um|uh|so|alright|right|hi|well|er|hey there|oh|listen|yeah}")
_AFTER = parse("{please|please|thanks}")
_BEFORE_SHARE = 0.12
_AFTER_SHARE = 0.05

# Draws in a row that bring nothing new before a template counts as exhausted.
_DRAWS = 20

_NOT_A_WORD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One row: what was said, what was meant to be said before any misspelling, and the intent."""

    text: str
    clean: str
    label: str


def normalise(text: str) -> str:
    """`text` for comparing: lower case, runs of anything but letters and digits as one space."""
    return _NOT_A_WORD.sub(" ", text.lower()).strip()


def generate(train_rows: int = 6000, dev_rows: int = 800, test_rows: int = 1600, seed: int = 0) -> Dataset:
    """The demo corpus: requests to a voice assistant on a device, labelled with their intents.

    50 intents, with close neighbours on purpose (alarm, timer, reminder and appointment; lights, screen and sound going
    up and down), a mild long tail and 12 % misspelt rows. How hard it is: TF-IDF of words and word pairs with logistic
    regression (scikit-learn, C = 10), fitted on train, is right on 97 % of dev and 80 % of test; with single words and
    C = 1, on 77 % of test.

    Train and dev speak the `Intent.train` templates: dev shows other slot fillings and choices of the phrasings that
    train shows. Test speaks the `Intent.test` templates, phrasings that train and dev never show. No text comes twice
    in the whole corpus, not even misspelt or with other punctuation, so no text has two labels either. The same
    arguments give the same corpus on every machine.

    Args:
        train_rows: rows of the train split.
        dev_rows: rows of the dev split.
        test_rows: rows of the test split.
        seed: any integer; another seed, another corpus from the same grammar.

    Returns:
        Dataset "demo" with splits train, dev and test in random order; label names in alphabetical order. A split of
        at least as many rows as there are intents holds every intent.

    Raises:
        UsageError: a negative number of rows, or more rows than the grammar has sentences.
    """
    sizes = {"train": train_rows, "dev": dev_rows, "test": test_rows}
    seen: set[str] = set()
    splits = {}
    for name, rows in sizes.items():
        if rows < 0:
            raise UsageError(f"the demo corpus cannot have that many {name} rows", found=rows, expected="0 or more")
        splits[name] = _split(utterances(name, rows, seed, seen))
    return Dataset(name="demo", splits=splits, label_names=tuple(sorted(intent.name for intent in INTENTS)))


def utterances(split: str, rows: int, seed: int, seen: set[str]) -> list[Utterance]:
    """The `rows` utterances of a split in random order; none of `seen` (normalised texts), which it adds its own to."""
    said: list[Utterance] = []
    for intent, count in zip(INTENTS, _shares(rows), strict=True):
        # A stream of its own for every intent and split: editing one intent leaves the others' sentences alone.
        rng = Random(f"demo corpus/{seed}/{split}/{intent.name}")
        said.extend(_distinct(intent, split, count, rng, seen))
    order = Random(f"demo corpus/{seed}/{split}")
    return [utterance for _, utterance in sorted(((order.random(), u) for u in said), key=lambda pair: pair[0])]


def _split(said: Sequence[Utterance]) -> Split:
    return Split(
        texts=[utterance.text for utterance in said],
        pairs=None,
        labels=[utterance.label for utterance in said],
        source="demo corpus",
        rows=list(range(1, len(said) + 1)),
    )


def _shares(rows: int) -> list[int]:
    """`rows` shared out by the intents' weights (largest remainders), at least one each where there are enough."""
    floor = 1 if rows >= len(INTENTS) else 0
    left = rows - floor * len(INTENTS)
    # Whole numbers: the sum of floats is not the same on every version of Python.
    weights = [round(100 * intent.weight) for intent in INTENTS]
    parts = [divmod(left * weight, sum(weights)) for weight in weights]
    shares = [floor + share for share, _ in parts]
    by_remainder = sorted(range(len(INTENTS)), key=lambda i: (-parts[i][1], i))
    for i in by_remainder[: rows - sum(shares)]:
        shares[i] += 1
    return shares


def _distinct(intent: Intent, split: str, count: int, rng: Random, seen: set[str]) -> Iterator[Utterance]:
    """`count` utterances of `intent` that nobody has said yet."""
    templates = _templates(intent, test=split == "test")
    speaker = Speaker(rng, slot_table())
    for done in range(count):
        # Templates take turns, so that every phrasing is heard about equally often; one that has no more to say is
        # passed over for the next.
        for draw in range(_DRAWS * len(templates)):
            utterance = _utter(intent, templates[(done + draw // _DRAWS) % len(templates)], speaker)
            keys = {normalise(utterance.clean), normalise(utterance.text)}
            if seen.isdisjoint(keys):
                break
        else:
            raise UsageError(
                f"the demo corpus has no more {split} sentences for the intent {intent.name!r}",
                found=f"{done} sentences",
                expected=f"{count} sentences",
                remedy="Ask for fewer rows.",
            )
        seen.update(keys)
        yield utterance


def _utter(intent: Intent, template: Node, speaker: Speaker) -> Utterance:
    clean = speaker.say(template)
    if intent.fillers:
        clean = _with_fillers(clean, speaker)
    text = misspell(clean, speaker.rng) if speaker.rng.random() < MISSPELT_SHARE else clean
    return Utterance(text=text, clean=clean, label=intent.name)


def _with_fillers(clean: str, speaker: Speaker) -> str:
    if speaker.rng.random() < _BEFORE_SHARE:
        clean = f"{speaker.say(_BEFORE)} {clean}"
    if speaker.rng.random() < _AFTER_SHARE and "please" not in clean:
        clean = f"{clean} {speaker.say(_AFTER)}"
    return clean


@cache
def _templates(intent: Intent, *, test: bool) -> tuple[Node, ...]:
    """The parsed templates of `intent`."""
    return tuple(parse(template) for template in (intent.test if test else intent.train))
