"""An export with a pruned vocabulary, compared with the same export with the full one."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from support import tiny_models as tinymodels
from support import tokenizer_kinds as tokenizerkinds
from support.command_line import ok, refused
from support.tiny_models import LABELS, MAX_LENGTH
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from reaugkd import Runtime
from reaugkd.errors import ModelError, QualityError
from reaugkd.export.bundle.write import Exported, ExportJob, export
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.onnx.quality import Floors
from reaugkd.export.training.finished_run import FinishedRun
from reaugkd.export.training.run_folder import RunFolder, read_rows
from reaugkd.export.training.train import TrainJob, train
from reaugkd.export.tuning.tune import Tuning
from reaugkd.export.vocabulary import prune_vocabulary as pruning
from reaugkd.export.vocabulary.prune_vocabulary import VocabularySize, plan_pruning
from reaugkd.runtime.data import Dataset, Split

FLOAT32 = ExportJob("avx2", "none", allow_quality_loss=True)
# Words that no row of the run has, each a piece of its own and like none that it has.
LATER = ["filler", "timetable", "sardine"]
RARE = [f"{first}{second}" for first, second in zip(tinymodels.WORDS, tinymodels.WORDS[1:], strict=False)][:45]
Made = tuple[Path, Exported]


def with_word_pieces(folder: Path) -> Path:
    """A BERT whose tokenizer has tokens of the rows' words, and words that are not in the rows."""
    tokenizer = tokenizerkinds.word_pieces()
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    del content["added_tokens"][-1]  # of a number behind the new ones
    letters = [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    for word in (*letters, *tinymodels.WORDS, *RARE, *LATER):
        vocabulary.setdefault(word, len(vocabulary))
    tinymodels.write_bert(folder, vocab_size=len(vocabulary), bos_token_id=vocabulary["[unused1]"])
    Tokenizer.from_str(json.dumps(content)).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pieces")
    fit = tinymodels.fast_fit(2)
    recipe = tinymodels.tiny_recipe(
        teacher=replace(tinymodels.tiny_recipe().teacher, fit=fit),
        student=replace(tinymodels.tiny_recipe().student, fit=fit),
    )
    train(with_rare_words(), TrainJob(str(with_word_pieces(folder / "bert")), recipe), folder / "run")
    return folder / "run"


def with_rare_words() -> Dataset:
    """Half of the train rows end with a unique word, so that held-out rows have words that train does not have."""
    data = tinymodels.make_dataset(90, 30)
    train = data.splits["train"]
    texts = [f"{text} {RARE[row // 2]}" if row % 2 else text for row, text in enumerate(train.texts)]
    return replace(data, splits={**data.splits, "train": replace(train, texts=texts)})


@pytest.fixture(scope="module")
def full(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = tmp_path_factory.mktemp("full") / "bundle"
    return path, export(run, path, FLOAT32)


@pytest.fixture(scope="module")
def pruned(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = tmp_path_factory.mktemp("pruned") / "bundle"
    return path, export(run, path, replace(FLOAT32, vocabulary=0))


def rows_of(run: Path) -> list[str]:
    return list(read_rows(RunFolder(run).data / "train.jsonl").texts)


def student_answers(path: Path, texts: list[str]) -> list[tuple[list[str], np.ndarray, np.ndarray]]:
    with Runtime.open(path) as runtime:
        encodings = [runtime.tokenizer.encode(text) for text in texts]
        return [(one.tokens, *runtime.student.run(one)) for one in encodings]


def words_of(path: Path) -> np.ndarray:
    """The table of tokens in a float32 model.onnx, found by its size."""
    tables = [numpy_helper.to_array(item) for item in onnx.load(str(path / "student" / "model.onnx")).graph.initializer]
    return max((table for table in tables if table.ndim == 2 and table.shape[1] == 32), key=len)


def test_the_train_rows_get_the_same_answers_bit_for_bit(run: Path, full: Made, pruned: Made) -> None:
    texts = rows_of(run)
    for (tokens, *arrays), (wanted, *expected) in zip(
        student_answers(pruned[0], texts), student_answers(full[0], texts), strict=True
    ):
        assert tokens == wanted
        for here, there in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(here, there)
    with Runtime.open(pruned[0]) as here, Runtime.open(full[0]) as there:
        keys = [runtime.knowledge_base.keys()[: len(texts)] for runtime in (here, there)]
        np.testing.assert_array_equal(*keys)


def test_the_tables_are_smaller_and_the_manifest_reports_it(run: Path, full: Made, pruned: Made) -> None:
    of = EncoderClassifier.load(RunFolder(run).student).encoder.config.vocab_size
    kept = Tokenizer.from_file(str(pruned[0] / "student" / "tokenizer.json")).get_vocab_size()
    assert full[1].manifest.quantization["vocabulary"] == {"kept": of, "of": of}
    found = pruned[1].manifest.quantization["vocabulary"]
    assert (found["kept"], found["of"]) == (kept, of) and kept < of - len(LATER)
    assert len(words_of(full[0])) == of and len(words_of(pruned[0])) == kept
    for path, rows in ((full[0], of), (pruned[0], kept)):
        config = json.loads((path / "student" / "config.json").read_text())
        assert config["vocab_size"] == rows and config["pad_token_id"] == 0
        assert config["max_position_embeddings"] == MAX_LENGTH
        tokenizer = Tokenizer.from_file(str(path / "student" / "tokenizer.json"))
        assert tokenizer.id_to_token(config["bos_token_id"]) == "[unused1]"
    assert "of the vocabulary" not in ok("inspect", full[0]).out
    assert f"{kept:,} of {of:,} tokens of the vocabulary" in ok("inspect", pruned[0]).out


def test_the_full_tokenizer_is_the_run_s_own_file(run: Path, full: Made) -> None:
    there = RunFolder(run).student / "tokenizer.json"
    assert (full[0] / "student" / "tokenizer.json").read_bytes() == there.read_bytes()


def test_texts_with_other_words_are_answered_from_smaller_pieces(full: Made, pruned: Made) -> None:
    for word in LATER:
        (before, *_), (after, *_) = (student_answers(path, [f"the {word}"])[0] for path in (full[0], pruned[0]))
        assert before == ["[CLS]", "the", word, "[SEP]"]
        assert len(after) > 4 and "[UNK]" not in after
        assert "".join(after[2:-1]).replace("##", "") == word
    with Runtime.open(pruned[0]) as runtime:
        assert runtime.predict(" ".join(LATER)).label in LABELS


def test_other_programs_give_the_same_answers(run: Path, full: Made, pruned: Made) -> None:
    texts = [*rows_of(run)[:5], "please the song"]
    with Runtime.open(pruned[0]) as runtime:
        ours = [runtime.student.run(runtime.tokenizer.encode(text))[0] for text in texts]
    optimum = pytest.importorskip("optimum.onnxruntime", reason="needs optimum-onnx: make test-optimum")
    model = optimum.ORTModelForSequenceClassification.from_pretrained(pruned[0] / "student")
    tokenizer = AutoTokenizer.from_pretrained(pruned[0] / "student")
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.pad_token_id == model.config.pad_token_id == 0
    for text, wanted in zip(texts, ours, strict=True):
        feeds = tokenizer(text, truncation=True, return_tensors="pt")
        np.testing.assert_allclose(model(**feeds).logits[0].numpy(), wanted, atol=1e-5)
    batch = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
    np.testing.assert_allclose(model(**batch).logits.numpy(), ours, atol=1e-4)


def plain_tokenizer(content: dict[str, Any]) -> Tokenizer:
    made = Tokenizer.from_str(json.dumps(content))
    made.no_padding()
    made.no_truncation()
    return made


def test_the_cost_is_measured_on_other_texts(run: Path, pruned: Made) -> None:
    """Computed again from the full tokenizer's file without the tokens that are not in the texts of the choice."""
    folder = RunFolder(run)
    heldout, trained = (read_rows(folder.data / f"{name}.jsonl") for name in ("heldout", "train"))
    content = json.loads((folder.student / "tokenizer.json").read_text(encoding="utf-8"))
    full = plain_tokenizer(content)
    single = {token for token in full.get_vocab() if len(token.removeprefix("##")) == 1}
    special = {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"}

    def with_words_of(texts: list[str]) -> Tokenizer:
        pieces = {token for text in texts for token in full.encode(text).tokens}
        smaller = copy.deepcopy(content)
        smaller["model"]["vocab"] = {  # the same ids: for the full student
            token: number
            for token, number in content["model"]["vocab"].items()
            if token in pieces | single | special | {"[unused1]"}
        }
        smaller["added_tokens"] = [token for token in smaller["added_tokens"] if token["content"] in special]
        return plain_tokenizer(smaller)

    shares = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(trained)).tolist()
        count = round(len(trained) / 10)
        smaller = with_words_of([trained.texts[row] for row in order[count:]])
        left_out = [trained.texts[row] for row in order[:count]]
        shares.append(np.mean([full.encode(text).ids != smaller.encode(text).ids for text in left_out]))
    smaller, student, other_label = with_words_of(trained.texts), EncoderClassifier.load(folder.student), 0
    for text in heldout.texts:
        labels = []
        for ids in (full.encode(text).ids, smaller.encode(text).ids):
            row = torch.tensor([ids[:MAX_LENGTH]])
            labels.append(int(student(input_ids=row, attention_mask=torch.ones_like(row)).logits.argmax()))
        other_label += labels[0] != labels[1]
    assert 0 < np.mean(shares) < max(shares) < 1
    assert pruned[1].manifest.quantization["vocabulary"]["unseen"] == {
        "split_otherwise": pytest.approx(np.mean(shares)),
        "split_otherwise_most": pytest.approx(max(shares)),
        "rows": len(heldout),
        "other_label": other_label,
    }


def test_extra_rows_keep_their_pieces(run: Path, pruned: Made, tmp_path: Path) -> None:
    extra = Split(LATER, None, None, "extra", [1, 2, 3])
    made = export(run, tmp_path / "bundle", replace(FLOAT32, vocabulary=0, extra=extra))
    kept = pruned[1].manifest.quantization["vocabulary"]["kept"]
    assert made.manifest.quantization["vocabulary"]["kept"] == kept + len(LATER)
    for word in LATER:
        assert word in student_answers(tmp_path / "bundle", [word])[0][0]


def test_a_number_above_the_vocabulary_keeps_all_tokens_that_can_occur(run: Path, tmp_path: Path) -> None:
    job = replace(FLOAT32, vocabulary=10_000, allow_quality_loss=False, floors=Floors(0, 1, 0, 0, split_otherwise=0))
    found = export(run, tmp_path / "bundle", job).manifest.quantization["vocabulary"]
    assert found["of"] - 1 == found["kept"]  # all but [unused2]
    assert found["unseen"]["split_otherwise_most"] == found["unseen"]["other_label"] == 0


def test_the_same_run_gives_the_same_bundle(run: Path, pruned: Made, tmp_path: Path) -> None:
    assert export(run, tmp_path / "bundle", replace(FLOAT32, vocabulary=0)).manifest == pruned[1].manifest


def test_too_many_texts_split_otherwise_are_refused(run: Path, tmp_path: Path) -> None:
    """Whatever the labels of the held-out rows: half of the left-out rows have a word that no other row has."""
    lenient = Floors(0, 1, 0, 0)
    with pytest.raises(QualityError, match="too many unseen texts are split into other tokens"):
        export(run, tmp_path / "bundle", replace(FLOAT32, floors=lenient, allow_quality_loss=False, vocabulary=0))
    assert not list(tmp_path.iterdir())


def test_pieces_of_mistyped_rows_come_first(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typing errors that turn every third word into "timetable", and some into "sardine"."""
    source = FinishedRun.read(RunFolder(run))
    student = source.student(source.recipe.retrieval)
    least = plan_pruning(source, student, 0, tmp_path).kept

    def errors(inputs: list[str], seed: int) -> list[str]:
        assert inputs == source.train.inputs() and seed > 0
        return [f"{text} timetable" if row % 3 else f"{text} sardine" for row, text in enumerate(inputs)]

    monkeypatch.setattr(pruning, "add_typos", errors)
    for more, words in ((0, set()), (1, {"timetable"}), (2, {"timetable", "sardine"})):
        assert plan_pruning(source, student, least + more, tmp_path).kept == least + more
        kept = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab().keys()
        assert kept & set(LATER) == words


@pytest.mark.parametrize("size", ["full", 0])
def test_a_student_with_other_outputs_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: VocabularySize
) -> None:
    def wrong(student: EncoderClassifier, *_: object) -> EncoderClassifier:
        made = copy.deepcopy(student)
        made.classifier.bias.data += 0.01
        return made

    monkeypatch.setattr(pruning, "prune_tables", wrong)
    with pytest.raises(ModelError, match="gives other outputs"):
        export(run, tmp_path / "bundle", replace(FLOAT32, vocabulary=size))


def test_a_tokenizer_without_smaller_pieces(tiny_run: tuple[Path, Tuning, TrainJob], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"found WordLevel.*without --vocabulary"):
        export(tiny_run[0], tmp_path / "bundle", replace(FLOAT32, vocabulary=100))
    assert not list(tmp_path.iterdir())


def test_the_option(run: Path, tmp_path: Path) -> None:
    call = ("--target", "avx2", "--allow-quality-loss", "--vocabulary")
    said = ok("export", run, "--out", tmp_path / "a", *call, "20").err
    assert re.search(r"vocabulary: \d+ of \d+ tokens; [1-9][\d.]*% of unseen texts are split into other tokens", said)
    assert "neither full nor a number" in refused("export", run, "--out", tmp_path / "b", *call, "-3")
    for gone in ("auto", "task"):
        assert "leave --vocabulary out" in refused("export", run, "--out", tmp_path / "b", *call, gone)
