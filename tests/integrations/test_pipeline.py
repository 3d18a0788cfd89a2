"""`reaugkd.pipeline` is called as transformers' pipeline is: every call gives an answer of the same shape in both."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.tiny_bundle import build_tiny_bundle

import reaugkd
from reaugkd import Runtime, TextError, UsageError
from reaugkd.integrations.pipeline import TextClassificationPipeline

LABELS = ("a", "b", "c")
Call = Callable[[Any], object]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """transformers' own pipelines, of a model with three labels."""
    from support.tiny_models import write_classifier
    from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, pipeline

    folder = write_classifier(tmp_path_factory.mktemp("model") / "model", dict(enumerate(LABELS)))
    tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **tokens)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return lambda **options: pipeline("text-classification", model=model, tokenizer=tokenizer, **options)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle", labels=LABELS)


def shape(answer: object) -> object:
    """Types, lengths and names, without values; a stream also says that it is one."""
    if isinstance(answer, dict):
        score, label = answer["score"], answer["label"]
        assert label in LABELS and type(score) is float and 0 < score < 1
        return tuple(answer)
    if isinstance(answer, list):
        if len(answer) > 1 and isinstance(answer[0], dict) and len({one["label"] for one in answer}) == len(answer):
            assert answer == sorted(answer, key=lambda one: -one["score"])
        return [shape(one) for one in answer]
    assert isinstance(answer, Iterator)
    return ("stream", [shape(one) for one in answer])


def data_set() -> object:
    from transformers.pipelines.pt_utils import KeyDataset

    return KeyDataset([{"words": "noon"}, {"words": "jazz"}], "words")


CALLS: dict[str, Call] = {
    "text": lambda p: p("noon"),
    "texts": lambda p: p(["noon", "jazz", "noon"]),
    "list of one": lambda p: p(["noon"]),
    "text, top 2": lambda p: p("noon", top_k=2),
    "text, top 1": lambda p: p("noon", top_k=1),
    "text, all": lambda p: p("noon", top_k=None),
    "text, more than all": lambda p: p("noon", top_k=99),
    "texts, top 2": lambda p: p(["noon", "jazz"], top_k=2),
    "texts, top 1": lambda p: p(["noon"], top_k=1),
    "dict": lambda p: p({"text": "noon"}),
    "dict, top 2": lambda p: p({"text": "noon"}, top_k=2),
    "dicts": lambda p: p([{"text": "noon"}, {"text": "jazz"}]),
    "dicts, all": lambda p: p([{"text": "noon"}], top_k=None),
    "softmax": lambda p: p("noon", function_to_apply="softmax"),
    "generator": lambda p: p(text for text in ("noon", "jazz")),
    "generator, top 2": lambda p: p((text for text in ("noon", "jazz")), top_k=2),
    "generator of dicts": lambda p: p({"text": text} for text in ("noon", "jazz")),
    "data set": lambda p: p(data_set()),
    "truncation": lambda p: p("noon", truncation=True),
}
PAIRS: dict[str, Call] = {
    "pair": lambda p: p({"text": "noon", "text_pair": "jazz"}),
    "pair, top 2": lambda p: p({"text": "noon", "text_pair": "jazz"}, top_k=2),
    "pairs": lambda p: p([{"text": "noon", "text_pair": "jazz"}] * 2),
    "tuple": lambda p: p(("noon", "jazz")),
}


@pytest.mark.parametrize("made", [{}, {"top_k": None}, {"top_k": 1}, {"top_k": 2}], ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_shapes(theirs: Callable[..., Any], bundle: Path, made: dict[str, Any], call: str) -> None:
    ours = reaugkd.pipeline(bundle, **made)
    assert shape(CALLS[call](ours)) == shape(CALLS[call](theirs(**made)))


@pytest.mark.parametrize("call", PAIRS)
def test_shapes_of_pairs(theirs: Callable[..., Any], pair_bundle: Path, call: str) -> None:
    assert shape(PAIRS[call](reaugkd.pipeline(pair_bundle))) == shape(PAIRS[call](theirs()))


def test_answers_are_those_of_the_runtime(bundle: Path) -> None:
    classify = reaugkd.pipeline(bundle, threads=2, retrieval="never", top_k=2)
    assert classify.runtime.retrieval == "never" and classify.task == "text-classification"
    with Runtime.open(bundle, retrieval="never") as runtime:
        for text in ("noon", "cheap milk"):
            expected = [{"label": label, "score": score} for label, score in runtime.predict(text).top(2)]
            assert classify(text, top_k=2) == expected and classify([text]) == classify(text) == [expected]


def test_a_stream_is_read_as_answers_are_needed(bundle: Path) -> None:
    read = []

    def texts() -> Iterator[str]:
        for text in ("noon", "jazz", "noon"):
            read.append(text)
            yield text

    answers = reaugkd.pipeline(bundle)(texts())
    assert read == [] and next(answers)["label"] in LABELS and read == ["noon"]


def test_what_is_better_than_theirs(bundle: Path) -> None:
    """An empty list is an error there; wrong arguments are passed on to the tokenizer, which ignores them."""
    classify = reaugkd.pipeline(bundle)
    assert classify([]) == []
    assert isinstance(classify(iter(["noon"])), Iterator) and not isinstance(classify, types.FunctionType)
    for wrong, message in (
        ({"return_all_scores": True}, "top_k=None"),
        ({"nonsense": 1}, "found nonsense"),
        ({"function_to_apply": "none"}, "probabilities already"),
        ({"top_k": 0}, "1 or more"),
        ({"top_k": "x"}, "1 or more"),
    ):
        with pytest.raises(UsageError, match=message):
            classify("noon", **wrong)
    for inputs, message in (
        ([["noon", "jazz"]], '{"text": "...", "text_pair": "..."}'),
        ({"label": "a"}, "other keys"),
        ([{"text": "noon", "label": 1}], "other keys"),
        ({"text": "noon", "text_pair": "jazz"}, "reads single texts"),
        ("", "the text is empty"),
        ([None], "not a text"),
        (3, "not a text"),
    ):
        with pytest.raises(TextError, match=message):
            classify(inputs)
    with pytest.raises(TextError, match="at most 24 with truncation=False"):
        classify("noon " * 40, truncation=False)
    assert classify("noon " * 40) != [] and classify("noon", truncation=False) == classify("noon")


def test_arguments_without_an_effect_are_ignored_with_one_warning(bundle: Path) -> None:
    with pytest.warns(UserWarning, match="ignores batch_size, device: ") as told:
        classify = reaugkd.pipeline(bundle, device="cpu", batch_size=8)
    assert len(told) == 1 and told[0].filename == __file__
    with pytest.warns(UserWarning, match="ignores max_length, padding: ") as told:
        classify("noon", padding=True, max_length=8)
    assert len(told) == 1 and told[0].filename == __file__
    with warnings.catch_warnings(action="error"):
        assert isinstance(classify, TextClassificationPipeline) and classify("noon", truncation=True)
