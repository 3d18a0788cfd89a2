"""An intent: its label and how people say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intent:
    """One label of the demo corpus with its phrasings, in the language of `grammar`.

    Attributes:
        name: The label.
        train: Templates of the train and dev splits.
        test: Templates of the test split, phrased differently: none of them can say a sentence skeleton of `train`.
        weight: Share of rows relative to an intent of weight 1.
        fillers: Whether "hey", "um" or "please" may be said around it; off where they would be the message.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    weight: float = 1.0
    fillers: bool = True
