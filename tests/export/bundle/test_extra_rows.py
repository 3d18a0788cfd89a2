"""Extra texts for the knowledge base at export: labelled by the teacher, without gold labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny_models as tinymodels
from support.command_line import names, ok, refused
from support.runs import QUICK, Finished
from support.tiny_models import LABELS
from support.workshop import Workshop
from transformers import AutoModelForSequenceClassification

from reaugkd import Runtime
from reaugkd.commands.data_source import load_rows
from reaugkd.errors import DataError, TextError
from reaugkd.export.bundle.write import ExportJob, export
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.modeling.projection import LinearLayer
from reaugkd.export.recipe import RetrievalRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training.run_folder import RunFolder, read_rows
from reaugkd.export.training.train import TrainJob, train
from reaugkd.runtime.data import Columns, Dataset, Split

JOB = ExportJob("avx2", "none", allow_quality_loss=True)


def unrelated(rows: int) -> Split:
    """Rows that are not related to rows of the tiny data."""
    known = [f" {text} " for split in tinymodels.make_dataset().splits.values() for text in split.texts]
    made = tinymodels.make_split(60, 77, source="new.csv")
    texts = [f" {text} " for text in made.texts]
    alone = [row for row, text in enumerate(texts) if not any(text in other or other in text for other in known)]
    return made.take(alone[:rows])


NEW = unrelated(12)  # with gold labels, which must not be used


def softmax(scores: np.ndarray, temperature: float) -> np.ndarray:
    exponents = np.exp((scores - scores.max(axis=-1, keepdims=True)) / temperature)
    return exponents / exponents.sum(axis=-1, keepdims=True)


def texts_of(run: Path, name: str) -> list[str]:
    return read_rows(run / "data" / f"{name}.jsonl").texts


def teacher_on(run: Path, inputs: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's logits and embeddings, one text at a time."""
    teacher = EncoderClassifier.load(run / "teacher")
    rows = tinymodels.tokens_of(inputs, run / "teacher")
    found = [teacher(**rows.batch([row])) for row in range(len(rows))]
    logits, embeddings = (
        np.concatenate([getattr(one, name).detach().double().numpy() for one in found])
        for name in ("logits", "embedding")
    )
    return logits, embeddings


@pytest.mark.parametrize("kept", [True, False])
def test_they_stand_after_the_train_rows_and_have_the_teachers_labels(
    tiny_run: Finished, tmp_path: Path, kept: bool
) -> None:
    path = tiny_run[0]
    recipe = replace(tiny_run[2].recipe.retrieval, keep_heldout=kept, gold_shares=(0.5,))
    made = export(path, tmp_path / "bundle", replace(JOB, extra=NEW, retrieval=recipe))
    train_texts, heldout = texts_of(path, "train"), texts_of(path, "heldout") if kept else []
    new = slice(len(train_texts), len(train_texts) + len(NEW))
    blend = made.manifest.blend
    assert blend.gold_share == 0.5
    with Runtime.open(tmp_path / "bundle") as runtime:
        kb = runtime.knowledge_base
        assert [kb.text(row) for row in range(len(kb))] == [*train_texts, *NEW.texts, *heldout]
        assert [kb.label(row) for row in range(new.start, new.stop)] == [-1] * len(NEW)
        assert all(kb.label(row) >= 0 for row in range(len(kb)) if not new.start <= row < new.stop)
        # No gold label is mixed in, though half of every other row's soft label is its own.
        logits, _ = teacher_on(path, NEW.texts)
        np.testing.assert_allclose(kb.soft_labels[new], softmax(logits, 1.0), atol=1e-3)
        assert kb.soft_labels[: new.start].max(axis=1).min() >= 0.5
        # Each row is found by the student's query for its text.
        for row, text in zip(range(new.start, new.stop), NEW.texts, strict=True):
            found, similarities = kb.search(runtime.student.run(runtime.tokenizer.encode(text))[1], 5)
            assert row in found[similarities > 0.998]
    assert made.manifest.created_from["extra_rows"] == len(NEW)
    assert made.manifest.kb_rows == len(train_texts) + len(NEW) + len(heldout)


def test_the_blend_is_tuned_on_the_heldout_rows_alone(tiny_run: Finished, tmp_path: Path) -> None:
    path = tiny_run[0]
    without, found = (
        export(path, tmp_path / str(number), replace(JOB, extra=rows)).manifest
        for number, rows in enumerate((None, NEW))
    )
    assert found.quality["tuning"]["rows"] == len(texts_of(path, "heldout"))
    for of_student in (
        lambda made: made.blend.student_temperature,
        lambda made: made.quality["tuning"]["nll"]["student"],
    ):
        assert of_student(found) == of_student(without)


def test_they_can_have_the_teachers_keys(tiny_run: Finished, tmp_path: Path) -> None:
    path, recipe = tiny_run[0], RetrievalRecipe("distilled", "teacher", keep_heldout=False)
    export(path, tmp_path / "bundle", replace(JOB, extra=NEW, retrieval=recipe))
    _, embeddings = teacher_on(path, NEW.texts)
    expected = embeddings @ LinearLayer.load(RunFolder(path).projection).weight.double().numpy().T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    first = len(texts_of(path, "train"))
    with Runtime.open(tmp_path / "bundle") as runtime:
        found, similarities = runtime.knowledge_base.search_many(expected.astype(np.float32), 5)
    for row, (rows, near) in enumerate(zip(found, similarities, strict=True), start=first):
        assert row in rows[near > 0.998]


@pytest.mark.slow
def test_labels_that_they_come_with_make_no_difference(tiny_run: Finished, tmp_path: Path) -> None:
    wrong = replace(NEW, labels=["no class of this run"] * len(NEW))
    bundles = [
        export(tiny_run[0], tmp_path / str(number), replace(JOB, extra=rows)).manifest
        for number, rows in enumerate((NEW, wrong, replace(NEW, labels=None)))
    ]
    assert bundles[0] == bundles[1] == bundles[2]  # every file's hash among it


def test_tuning_rows_are_not_in_the_knowledge_base_while_tuning(tiny_run: Finished, tmp_path: Path) -> None:
    """However it is spaced; nor a row that train has already."""
    path = tiny_run[0]
    heldout, known = texts_of(path, "heldout"), texts_of(path, "train")
    texts = [heldout[0], NEW.texts[0], "  ".join(heldout[1].split(" ")) + " ", NEW.texts[1], known[0]]
    extra = Split(texts, None, None, "new.csv", [1, 2, 3, 4, 5])
    recipe = replace(tiny_run[2].recipe.retrieval, keep_heldout=False)
    made = export(path, tmp_path / "bundle", replace(JOB, extra=extra, retrieval=recipe))
    with Runtime.open(tmp_path / "bundle") as runtime:
        kb = runtime.knowledge_base
        assert [kb.text(row) for row in range(len(kb))] == [*known, NEW.texts[0], NEW.texts[1]]
    assert made.manifest.created_from["extra_rows"] == 2


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.slow
def test_rows_related_to_tuning_rows_are_added_only_with_them(tiny_run: Finished, tmp_path: Path, kept: bool) -> None:
    """A phrase of a held-out text would make its neighbours better than those of new texts."""
    path = tiny_run[0]
    heldout, known = texts_of(path, "heldout"), texts_of(path, "train")
    longest = max(heldout, key=len)
    phrase = " ".join(longest.split()[1:])
    assert phrase not in [*heldout, *known]
    extra = Split([phrase, NEW.texts[0]], None, None, "new.csv", [1, 2])
    recipe = replace(tiny_run[2].recipe.retrieval, keep_heldout=kept)
    alone, both = (
        export(path, tmp_path / name, replace(JOB, extra=rows, retrieval=recipe)).manifest
        for name, rows in (("alone", extra.take([1])), ("both", extra))
    )
    with Runtime.open(tmp_path / "both") as runtime:
        kb = runtime.knowledge_base
        found = [kb.text(row) for row in range(len(kb))]
    assert found == [*known, NEW.texts[0], *([*heldout, phrase] if kept else [])]
    assert both.blend == alone.blend
    assert both.quality["tuning"]["nll"] == pytest.approx(alone.quality["tuning"]["nll"])


@pytest.mark.parametrize("repeated", [True, False])
@pytest.mark.slow
def test_extra_rows_that_are_all_known_have_no_effect(tiny_run: Finished, tmp_path: Path, repeated: bool) -> None:
    texts = texts_of(tiny_run[0], "heldout")[:4] if repeated else []
    extra = Split(texts, None, None, "new.csv", list(range(1, len(texts) + 1)))
    without, found = (
        export(tiny_run[0], tmp_path / str(number), replace(JOB, extra=rows)).manifest
        for number, rows in enumerate((None, extra))
    )
    assert found == without


def test_pairs(tiny_bert: Path, tmp_path: Path) -> None:
    train(tinymodels.make_dataset(84, 9, pairs=True), TrainJob(str(tiny_bert), QUICK), tmp_path / "run")
    heldout = read_rows(tmp_path / "run" / "data" / "heldout.jsonl")
    assert heldout.pairs is not None
    rows = [("the song", "play it"), (heldout.texts[0], heldout.pairs[0]), (heldout.pairs[0], heldout.texts[0])]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    extra = load_rows(str(tmp_path / "new.jsonl"), Columns(), pair=True)
    made = export(tmp_path / "run", tmp_path / "bundle", replace(JOB, extra=extra))
    first = made.manifest.kb_rows - len(heldout) - 2
    # The last one shares its texts with a held-out pair, so it comes after them.
    kept, places = [rows[0], rows[2]], [first, made.manifest.kb_rows - 1]
    with Runtime.open(tmp_path / "bundle") as runtime:
        kb = runtime.knowledge_base
        assert [kb.text(row) for row in places] == kept
        logits, _ = teacher_on(tmp_path / "run", kept)
        expected = softmax(logits, 1.0)
        np.testing.assert_allclose(kb.soft_labels[places], expected, atol=1e-3)


def test_a_teacher_that_came_fine_tuned_labels_them_too(small_dataset: Dataset, tmp_path: Path) -> None:
    """The teacher is loaded from its source, and its outputs have the order of the labels."""
    theirs = ("weather", "alarm", "music")
    source = tinymodels.write_classifier(tmp_path / "teacher", dict(enumerate(theirs)))
    recipe = override(QUICK, teacher__labels=theirs)  # it is random, and used all the same
    train(small_dataset, TrainJob(str(source), recipe), tmp_path / "run")
    export(tmp_path / "run", tmp_path / "bundle", replace(JOB, extra=NEW))
    model = AutoModelForSequenceClassification.from_pretrained(source).eval()
    rows = tinymodels.tokens_of(NEW.texts, source)
    logits = np.array([model(**rows.batch([row])).logits[0, [1, 2, 0]].tolist() for row in range(len(rows))])
    first = len(texts_of(tmp_path / "run", "train"))
    with Runtime.open(tmp_path / "bundle") as runtime:
        found = runtime.knowledge_base.soft_labels[first : first + len(NEW)]
    np.testing.assert_allclose(found, softmax(logits, 1.0), atol=1e-3)


# Reading them.


@pytest.mark.parametrize(
    ("name", "content", "pair", "texts", "pairs"),
    [
        ("a.txt", "noon\ncall me\n", False, ["noon", "call me"], None),
        ("a.csv", "label,text\nnonsense,noon\n,call\n", False, ["noon", "call"], None),
        ("a.jsonl", '{"text": "noon"}\n\n"call"\n', False, ["noon", "call"], None),
        ("a.tsv", "sentence1\tsentence2\nnoon\tcall\n", True, ["noon"], ["call"]),
        ("a.txt", "noon\tcall\n", True, ["noon"], ["call"]),
    ],
)
def test_files_of_texts(
    tmp_path: Path, name: str, content: str, pair: bool, texts: list[str], pairs: list[str] | None
) -> None:
    (tmp_path / name).write_text(content)
    found = load_rows(str(tmp_path / name), Columns(), pair)
    assert (found.texts, found.pairs, found.labels) == (texts, pairs, None)
    assert found.source == str(tmp_path / name) and len(found.rows) == len(texts)


@pytest.mark.parametrize(
    ("name", "content", "row"),
    [("a.txt", b"noon\n\ncall\n", 2), ("a.jsonl", b'"noon"\n{"words": 1}\n', 2), ("a.csv", b'text\nnoon\n" "\n', 3)],
)
def test_a_row_without_a_text_is_reported(tmp_path: Path, name: str, content: bytes, row: int) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((DataError, TextError)) as caught:
        load_rows(str(tmp_path / name), Columns(), False)
    assert caught.value.path == str(tmp_path / name) and caught.value.row == row


# Through the command line.


class TestCommandLine:
    def test_a_prediction_explains_itself_by_them(self, workshop: Workshop, tmp_path: Path) -> None:
        text = "thunder thunder umbrella degree"
        (tmp_path / "new.csv").write_text(f"gold,words\nmusic,{text}\nalarm,bell bell clock\n")
        given = ("--kb-data", tmp_path / "new.csv", "--text-column", "words", "--leave-heldout")
        options = ("--target", "avx2", "--allow-quality-loss", *given)
        reported = ok("export", workshop.run, "--out", tmp_path / "bundle", *options).err
        assert (
            "new.csv: 2 new texts\n" in reported and "held-out rows" in reported.split("new texts\n")[1].split("\n")[0]
        )
        (line,) = ok("predict", tmp_path / "bundle", text, "--format", "jsonl", "--explain").out.splitlines()
        nearest = json.loads(line)["neighbours"][0]
        assert nearest["text"] == text and nearest["similarity"] > 0.99
        assert nearest["gold_label"] is None and nearest["label"] == "weather"
        created = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["created_from"]
        assert created["extra_rows"] == 2
        assert created["recipe"]["retrieval"]["keep_heldout"] is False

    def test_a_bad_row_names_file_and_row(self, workshop: Workshop, tmp_path: Path) -> None:
        (tmp_path / "new.txt").write_text("noon\n\ncall\n")
        message = refused("export", workshop.run, "--out", tmp_path / "bundle", "--kb-data", tmp_path / "new.txt")
        assert f"{tmp_path / 'new.txt'}, row 2" in message
        assert names(tmp_path) == ["new.txt"]

    @pytest.mark.parametrize(
        ("content", "said"), [(None, "no such file"), ("", "the file is empty"), ("a,b\n1,2\n", "text column")]
    )
    def test_a_file_that_cannot_be_used(
        self, workshop: Workshop, tmp_path: Path, content: str | None, said: str
    ) -> None:
        file = tmp_path / "new.csv"
        if content is not None:
            file.write_text(content)
        message = refused("export", workshop.run, "--out", tmp_path / "bundle", "--kb-data", file)
        assert str(file) in message and said in message
        assert not (tmp_path / "bundle").exists()

    def test_a_way_to_ask_and_a_way_to_be_found_that_do_not_fit(self, workshop: Workshop, tmp_path: Path) -> None:
        message = refused("export", workshop.run, "--out", tmp_path / "bundle", "--keys", "teacher")
        assert "query 'layers'" in message and "query 'distilled'" in message
        assert names(tmp_path) == []

    def test_the_papers_way_to_retrieve(self, workshop: Workshop, tmp_path: Path) -> None:
        options = ("--query", "distilled", "--keys", "teacher", "--target", "avx2", "--allow-quality-loss")
        ok("export", workshop.run, "--out", tmp_path / "bundle", *options, "--leave-heldout")
        manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
        retrieval = manifest["created_from"]["recipe"]["retrieval"]
        assert (retrieval["query"], retrieval["keys"]) == ("distilled", "teacher")
        assert manifest["kb_rows"] == len(texts_of(workshop.run, "train"))


def test_the_rows_are_of_three_classes() -> None:
    assert set(NEW.labels or ()) == set(LABELS)
