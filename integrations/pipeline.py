"""The shapes of transformers' text-classification pipeline: a program that calls one can call a bundle instead."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from ..errors import TextError, UsageError
from ..runtime.inference.prediction import Prediction, checked_top_k
from ..runtime.inference.text.inputs import Text
from ..runtime.runtime import Runtime

TopK = int | Literal[""] | None
"""A number of labels, None for all; ``""`` is not given: the best label, without a list around it."""

_NO_EFFECT = frozenset(("batch_size", "device", "device_map", "dtype", "max_length", "num_workers", "padding"))


def pipeline(bundle: str | os.PathLike[str], top_k: TopK = "", **options: Any) -> TextClassificationPipeline:
    """Open a bundle as a pipeline that is called like transformers' ``pipeline("text-classification", ...)``.

    Args:
        bundle: a folder, or a repository on the Hub, as in `Runtime.from_pretrained`.
        top_k: the number of labels in each answer; None for all. Default: one, without a list around it.
        options: other arguments of `Runtime.from_pretrained`, such as ``threads`` and ``revision``. Arguments of
            transformers' pipeline that have no effect here, such as ``device`` and ``batch_size``, are ignored with a
            warning.

    Raises:
        UsageError: an argument has an unusable value.
        BundleError, HubError, DependencyError: same as `Runtime.from_pretrained`.

    Example:
        >>> classify = reaugkd.pipeline("bundle")
        >>> classify("wake me at seven")
        [{'label': 'alarm', 'score': 0.98}]
    """
    top_k = _checked(top_k)
    _warn_of({name: options.pop(name) for name in _NO_EFFECT & options.keys()})
    return TextClassificationPipeline(Runtime.from_pretrained(bundle, **options), top_k)


class TextClassificationPipeline:
    """An open bundle with the calls and answers of transformers' text-classification pipeline.

    Args:
        runtime: the open bundle.
        top_k: same as `pipeline`.

    Attributes:
        runtime: the open bundle; `Runtime.close` ends the pipeline.
        task: ``"text-classification"``.
    """

    task = "text-classification"

    def __init__(self, runtime: Runtime, top_k: TopK = "") -> None:
        self.runtime, self._top_k = runtime, top_k

    def __call__(
        self,
        inputs: object,
        top_k: TopK = "",
        function_to_apply: str | None = None,
        truncation: bool | str = True,
        **ignored: object,
    ) -> Any:
        """Classify a text, a list of texts, or a stream of texts.

        Args:
            inputs: a text; a pair ``{"text": ..., "text_pair": ...}``; a list of these; or a data set or another
                iterable, which is read as answers are needed.
            top_k: same as `pipeline`; it replaces the pipeline's own.
            function_to_apply: ``"softmax"`` or None: scores are probabilities.
            truncation: False refuses a text with more tokens than the model reads; otherwise its beginning is read.
            ignored: arguments that have no effect here (`pipeline`).

        Returns:
            ``{"label": str, "score": float}``, or a list of these where ``top_k`` was given; for a list of inputs a
            list of answers, for a stream an iterator. The answer to a single text has one more list around it if this
            call has no ``top_k``, as in transformers.

        Raises:
            UsageError: an argument is unknown or has an unusable value.
            TextError: an input is not a text or a pair, or not what the model reads.
        """
        if function_to_apply not in (None, "softmax", "default"):
            raise UsageError(
                "a bundle's scores are probabilities already",
                found=f"function_to_apply={function_to_apply!r}",
                expected="'softmax' or None",
            )
        if unknown := ignored.keys() - _NO_EFFECT:
            raise UsageError(
                "the pipeline does not know the argument",
                found=", ".join(sorted(unknown)),
                expected="top_k, function_to_apply, truncation",
                remedy="For the scores of all labels, give top_k=None.",
            )
        _warn_of(ignored)
        answer = self._answers_in_shape(self._top_k if top_k == "" else _checked(top_k), truncation)
        if isinstance(inputs, str | Mapping | tuple):
            found = answer(self.runtime.predict(_text(inputs)))
            return [found] if isinstance(inputs, str) and top_k == "" else found
        answers = map(answer, self.runtime.predict_many(map(_text, _items(inputs))))
        return list(answers) if isinstance(inputs, list) else answers

    def _answers_in_shape(self, top_k: TopK, truncation: bool | str) -> Callable[[Prediction], Any]:
        whole = truncation in (False, "do_not_truncate")

        def answer(found: Prediction) -> Any:
            if whole and found.truncated:
                raise TextError(
                    "the text has too many tokens",
                    expected=f"at most {self.runtime.manifest.max_length:,} with truncation=False",
                    remedy="Leave truncation out to read its beginning.",
                )
            if top_k == "":
                return {"label": found.label, "score": found.probability}
            top = found.top(len(found.labels) if top_k is None else top_k)
            return [{"label": label, "score": probability} for label, probability in top]

        return answer


def _checked(top_k: TopK) -> TopK:
    return top_k if top_k is None or top_k == "" else checked_top_k(top_k)


def _warn_of(ignored: Mapping[str, object]) -> None:
    if ignored:
        names = ", ".join(sorted(ignored))
        warnings.warn(f"a bundle's pipeline ignores {names}: it answers text by text on the CPU", stacklevel=3)


def _items(inputs: Any) -> Iterator[object]:
    if isinstance(inputs, Iterable):
        return iter(inputs)
    if hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"):  # a data set of PyTorch
        return (inputs[row] for row in range(len(inputs)))
    raise TextError("the input is not a text", found=type(inputs).__name__, expected="a text, a list or an iterable")


def _text(item: Any) -> Text:
    """A text or a pair as the runtime takes it; the runtime checks its values.

    Raises:
        TextError: it is a dict with other keys, or a list.
    """
    if isinstance(item, Mapping):
        if not {"text"} <= item.keys() <= {"text", "text_pair"}:
            raise TextError("the input has other keys", found=", ".join(map(str, item)), expected="text, text_pair")
        second = item.get("text_pair")
        item = item["text"] if second is None else (item["text"], second)
    if isinstance(item, list):
        expected, remedy = "a text or a dict", 'Give a pair as {"text": "...", "text_pair": "..."}.'
        raise TextError("the input is a list in a list", found=repr(item), expected=expected, remedy=remedy)
    text: Text = item  # the runtime checks it
    return text
