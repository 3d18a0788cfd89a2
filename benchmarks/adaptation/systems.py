"""The compared systems. Each can answer a text, learn the label of a text, and replace a wrong label.

Every system starts with the same train rows. Those with the pretrained encoder keep the vectors of all rows, so a
refitted head needs no new run of the encoder for the old ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

REAUGKD, STUDENT = "reaugkd", "the student alone"
ADAPTIVE, ROUTER = "adaptive-classifier 0.3.1", "semantic-router 1.1.1"
SETFIT, SKLEARN = "SetFit's head, refitted", "LogisticRegression, refitted"

OWN_MODEL = (REAUGKD, STUDENT)
"""Systems without the pretrained encoder."""

SLOW = (ADAPTIVE, SETFIT, SKLEARN)
"""Systems that train before a change returns."""


class System(Protocol):
    """A classifier that learns in the field."""

    def answer(self, text: str) -> str:
        """Return the label of a text."""

    def tell(self, texts: list[str], labels: list[str]) -> None:
        """Learn the labels of texts."""

    def correct(self, text: str, wrong: str, label: str) -> None:
        """Replace the label that was told for a text."""

    def wait(self) -> None:
        """Wait for work in the background."""


class Vectors:
    """The pretrained encoder's vectors: those of known texts are looked up, others are computed."""

    def __init__(self, known: Mapping[str, Floats], encode: Callable[[list[str]], Floats]) -> None:
        self._known, self._encode = known, encode

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Return the vectors of the texts, [texts, components]."""
        missing = [text for text in texts if text not in self._known]
        if len(missing) == len(texts):
            return self._encode(list(texts))
        found = dict(zip(missing, self._encode(missing), strict=True)) if missing else {}
        return np.stack([found[text] if text in found else self._known[text] for text in texts])


class Reaugkd:
    """A bundle whose knowledge base is edited; without edits and retrieval it is the student alone."""

    def __init__(self, bundle: Path, retrieval: Any = "always") -> None:
        from reaugkd import Runtime

        self._runtime = Runtime.open(bundle, threads=1, retrieval=retrieval)
        self._learns = retrieval != "never"

    def answer(self, text: str) -> str:
        """Return the label of a text."""
        return self._runtime.predict(text).label

    def tell(self, texts: list[str], labels: list[str]) -> None:
        """Add rows."""
        from reaugkd import Row

        if self._learns:
            self._runtime.kb.add([Row(text, label) for text, label in zip(texts, labels, strict=True)], new_labels=True)

    def correct(self, text: str, wrong: str, label: str) -> None:
        """Change the label of the row."""
        if self._learns:
            self._runtime.kb.relabel({text: label}, new_labels=True)

    def wait(self) -> None:
        """Wait for the classifier of new labels."""
        self._runtime.kb.wait()


class Adaptive:
    """adaptive-classifier as it is set by default: prototypes and a neural head, trained again by every new example."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @classmethod
    def fit(cls, encoder: Path, rows: Mapping[str, str], vectors: Mapping[str, Floats]) -> Adaptive:
        """Start with the rows; texts with known vectors are not encoded again."""
        import torch
        from adaptive_classifier import AdaptiveClassifier

        torch.set_num_threads(1)
        logging.getLogger("adaptive_classifier").setLevel(logging.ERROR)
        model = AdaptiveClassifier(str(encoder), device="cpu")
        own = model._get_embeddings

        def embeddings(texts: list[str]) -> list[Any]:
            if all(text in vectors for text in texts):
                return [torch.from_numpy(vectors[text]) for text in texts]
            found: list[Any] = own(texts)
            return found

        model._get_embeddings = embeddings
        model.add_examples(list(rows), list(rows.values()))
        return cls(model)

    def answer(self, text: str) -> str:
        """Return the label of a text."""
        return str(self.model.predict(text, k=1)[0][0])

    def tell(self, texts: list[str], labels: list[str]) -> None:
        """Add examples."""
        self.model.add_examples(texts, labels)

    def correct(self, text: str, wrong: str, label: str) -> None:
        """Remove the example and add it with its label; only the second trains the head."""
        self.model.remove_examples([text], label=wrong, retrain=False)
        self.model.add_examples([text], [label])

    def wait(self) -> None:
        """Nothing works in the background."""


class Router:
    """semantic-router: the routes of the nearest utterances."""

    def __init__(self, router: Any) -> None:
        self.router = router

    @classmethod
    def fit(cls, encoder: Path, rows: Mapping[str, str], vectors: Mapping[str, Floats], aggregation: Any) -> Router:
        """Start with the rows as utterances."""
        import torch
        from semantic_router import IndexedRouter, Route
        from semantic_router.encoders import LocalEncoder

        torch.set_num_threads(1)
        logging.getLogger("semantic_router").setLevel(logging.ERROR)

        class Known(LocalEncoder):
            def __call__(self, docs: list[str]) -> list[list[float]]:
                encode = super().__call__
                found: list[list[float]] = Vectors(vectors, lambda texts: np.array(encode(texts)))(docs).tolist()
                return found

        routes: dict[str, list[str]] = {}
        for text, label in rows.items():
            routes.setdefault(label, []).append(text)
        made = [Route(name=name, utterances=texts) for name, texts in routes.items()]
        return cls(IndexedRouter(Known(name=str(encoder), device="cpu"), made, aggregation=aggregation))

    def answer(self, text: str) -> str:
        """Return the best route."""
        return str(self.router(text).name)

    def tell(self, texts: list[str], labels: list[str]) -> None:
        """Add utterances."""
        from semantic_router import Route

        self.router.add([Route(name=label, utterances=[text]) for text, label in zip(texts, labels, strict=True)])

    def correct(self, text: str, wrong: str, label: str) -> None:
        """Remove the wrong route with all its utterances and add the others again: no single one can be removed."""
        from semantic_router import Route

        others = next(route.utterances for route in self.router.routes if route.name == wrong)
        self.router.remove(wrong)
        self.router.add([Route(name=wrong, utterances=[other for other in others if other != text])])
        self.tell([text], [label])

    def wait(self) -> None:
        """Nothing works in the background."""


class Head:
    """A linear head that is refitted on the vectors of all rows after every change."""

    def __init__(self, head: Any, vectors: Vectors, rows: Mapping[str, str], answer: Callable[[str], str]) -> None:
        self.head, self.vectors, self._answer = head, vectors, answer
        self.rows = dict(rows)
        self.stored = {text: vector for text, vector in zip(rows, vectors(list(rows)), strict=True)}
        self.refit()

    def answer(self, text: str) -> str:
        """Return the label of a text."""
        return self._answer(text)

    def tell(self, texts: list[str], labels: list[str]) -> None:
        """Store the rows and refit."""
        self.stored.update(zip(texts, self.vectors(texts), strict=True))
        self.rows.update(zip(texts, labels, strict=True))
        self.refit()

    def correct(self, text: str, wrong: str, label: str) -> None:
        """Replace the label and refit."""
        self.tell([text], [label])

    def refit(self) -> None:
        """Fit the head on all rows; a head with warm_start begins with its last weights, and zeros for new classes."""
        labels = np.array(list(self.rows.values()))
        if self.head.warm_start and hasattr(self.head, "coef_"):
            before, classes = self.head.classes_, np.unique(labels)
            at = np.searchsorted(classes, before)
            weights = np.zeros((len(classes), self.head.coef_.shape[1]), self.head.coef_.dtype)
            biases = np.zeros(len(classes), self.head.intercept_.dtype)
            weights[at], biases[at] = self.head.coef_, self.head.intercept_
            self.head.coef_, self.head.intercept_ = weights, biases
        self.head.fit(np.stack([self.stored[text] for text in self.rows]), labels)

    def wait(self) -> None:
        """Nothing works in the background."""
