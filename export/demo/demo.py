"""The demo: train on a small part of banking77, export, and show step by step what retrieval adds and costs."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from ...runtime.benchmark.bench import BenchSettings, bench
from ...runtime.benchmark.cold_start import bundle_bytes
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.manifest import MANIFEST_FILE
from ...runtime.data import Split, label_indices
from ...runtime.evaluation.evaluate import evaluate_bundle
from ...runtime.evaluation.fidelity import split_with_typos
from ...runtime.evaluation.results import BLEND, STUDENT, STUDENT_FP32, TEACHER, EvalReport
from ...runtime.runtime import Runtime
from ..bundle.write import ExportJob, export
from ..onnx.quantization import detect_target
from ..recipe_file import load_recipe
from ..training.evaluate_run import run_probabilities
from ..training.run_folder import remove_folder
from ..training.splits import assign
from ..training.train import TrainJob, train
from .data import MORE_TEXTS, NEW_INTENT, ROWS_PER_INTENT, Row, write_demo_data
from .page import Page, Say, percent, points

DATA, RUN, BUNDLE, MORE_BUNDLE, EDITED_BUNDLE = "banking77", "run", "bundle", "bundle-more-texts", "bundle-new-intent"
RECIPE = Path(__file__).with_name("recipe.toml")
_NEIGHBOURS = 3
_WHY = "a new intent"


@dataclass(frozen=True)
class DemoJob:
    """What the demo runs on.

    Args:
        out: the folder for everything that the demo writes.
        teacher: the pretrained encoder: a folder or a hub id.
        rows: ``train`` and ``test``, as `read_banking77` gives them.
        recipe: the recipe's file.
        seed: seed of the choice of train rows and of the training.
        new_intent: the intent that is left out of the training.
        rows_per_intent: train rows of each of the others.
        bench: how long to measure latencies.
        export: how to export.
    """

    out: Path
    teacher: str
    rows: dict[str, list[Row]]
    recipe: Path = RECIPE
    seed: int = 0
    new_intent: str = NEW_INTENT
    rows_per_intent: int = ROWS_PER_INTENT
    bench: BenchSettings = BenchSettings(seconds=3, processes=0, passes=1)
    export: ExportJob | None = None


def run_demo(job: DemoJob, say: Say) -> None:
    """Run the demo; trained stages that a call before left in ``job.out`` are used again, the rest is made anew.

    Raises:
        ReaugkdError: the training or the export fails; `train` and `export` say how.
    """
    begun = time.monotonic()
    demo = _Demo(job, Page(say))
    demo.introduce()
    demo.train()
    own = demo.evaluate(BUNDLE, demo.data.dataset.splits["test"])
    demo.student_alone(own)
    demo.own_rows(own)
    demo.more_rows()
    demo.typing_errors()
    demo.new_intent(own)
    demo.costs()
    demo.files()
    demo.predictions()
    demo.next_steps()
    say(f"\nDone in {time.monotonic() - begun:.0f} s.")


class _Demo:
    """The steps, in the order of their methods."""

    def __init__(self, job: DemoJob, page: Page) -> None:
        self.job, self.page, self.out = job, page, job.out
        self.recipe = replace(load_recipe(job.recipe), seed=job.seed)
        self.data = write_demo_data(job.rows, job.out / DATA, job.seed, job.new_intent, job.rows_per_intent)
        shutil.copyfile(job.recipe, job.out / RECIPE.name)
        self.splits = assign(self.data.dataset, self.recipe, None)
        self.export_job = job.export or ExportJob(detect_target())

    def introduce(self) -> None:
        """The data and the encoder."""
        splits, intents = self.splits, len(self.data.dataset.label_names)
        cited = "Casanueva et al. 2020, CC BY 4.0"
        self.page.text(f"Data: banking77, questions of bank customers with {intents + 1} intents ({cited})", "")
        self.page.figures(
            [
                ("train", f"{len(splits.train):,}", f"labelled questions of {intents} intents"),
                ("held out", f"{len(splits.heldout):,}", "more of them, which decide how much retrieval counts"),
                ("dev", f"{len(splits.scored['dev']):,}", "more of them, which the demo does not use"),
                ("more texts", f"{len(self.data.more):,}", "questions without labels, for step 3"),
                ("test", f"{len(splits.scored['test']):,}", "questions of the same intents, for the scores only"),
                ("left out", "1", f"intent, {self.job.new_intent}: step 5 adds it without training"),
            ]
        )
        self.page.text(f"The files are in {self.out / DATA}. The pretrained encoder is {_shown(self.job.teacher)}.", "")

    def train(self) -> None:
        """Train and export."""
        self.page.text("Training a teacher and a student takes about two minutes on two cores ...", "")
        train(self.data.dataset, TrainJob(self.job.teacher, self.recipe, redo=True), self.out / RUN)
        self._export(BUNDLE, self.export_job)

    def student_alone(self, own: EvalReport) -> None:
        """Scores of the student, the teacher and a baseline."""
        seed = f" --seed {self.job.seed}" if self.job.seed else ""
        self.page.step(
            "The student alone",
            "The teacher is the encoder, fine-tuned. The student is a smaller copy that learns its answers. "
            "Accuracy on the test questions, here and below:",
            f"reaugkd train --data {self.out / DATA} --teacher ENCODER --recipe {self.out / RECIPE.name}{seed} "
            f"--out {self.out / RUN}",
            f"reaugkd export {self.out / RUN} --out {self.out / BUNDLE}",
        )
        dataset, layers = self.data.dataset, len(self.recipe.student.layers)
        extra = run_probabilities(self.out / RUN, dataset.splits["test"], dataset.label_names)
        gold = label_indices(dataset.splits["test"], dataset.label_names)
        scores = {name: float((found.argmax(axis=1) == gold).mean()) for name, found in extra.items()}
        self.page.figures(
            [
                ("TF-IDF + logistic regression on the same rows", percent(self._tfidf())),
                ("teacher", percent(scores[TEACHER])),
                (f"student, {layers} layers, float32", percent(scores[STUDENT_FP32])),
                (f"student, {layers} layers, int8, as in the bundle", percent(_accuracy(own, STUDENT))),
            ]
        )

    def own_rows(self, own: EvalReport) -> None:
        self.page.step(
            "The student with its own training rows",
            "The bundle also holds the training rows. Each text looks up those most like it, and their labels are "
            "mixed into the answer.",
            f"reaugkd eval {self.out / BUNDLE} --data {self.out / DATA}",
        )
        self._compare(own)

    def more_rows(self) -> None:
        more = self.data.more
        self.page.step(
            f"The student with {len(more):,} more texts",
            "Texts without labels join the knowledge base. The teacher labels them; nothing is trained again.",
            f"reaugkd export {self.out / RUN} --out {self.out / MORE_BUNDLE} --kb-data {self.out / DATA / MORE_TEXTS}",
        )
        self._export(MORE_BUNDLE, replace(self.export_job, extra=more))
        self._compare(self.evaluate(MORE_BUNDLE, self.data.dataset.splits["test"]))

    def typing_errors(self) -> None:
        split = split_with_typos(self.data.dataset.splits["test"])
        self.page.step(
            "The same on text with typing errors",
            "In each test question one long word in four, at least one, gets a typing error, for example:",
        )
        self.page.lines(f'"{split.texts[0]}"')
        own, more = (self.evaluate(name, split) for name in (BUNDLE, MORE_BUNDLE))
        rows = [("student", percent(_accuracy(own, STUDENT)), "")]
        for name, report in (("its own rows", own), (f"{len(self.data.more):,} more texts", more)):
            rows.append((f"student + retrieval, {name}", percent(_accuracy(report, BLEND)), _gain(report)))
        self.page.figures(rows)

    def new_intent(self, own: EvalReport) -> None:
        name, rows = self.job.new_intent, self.data.new_rows
        bundle, others = self.out / EDITED_BUNDLE, self.data.dataset.splits["test"]
        self.page.step(
            "A new intent without training",
            f"A copy of the bundle of step 2 gets {len(rows)} questions of the intent {name}.",
            f'reaugkd kb add {bundle} "QUESTION" --label {name} --new-labels',
        )
        _clear(bundle)
        shutil.copytree(self.out / BUNDLE, bundle)
        with Runtime.open(bundle, threads=None) as runtime:
            before = _share(runtime, self.data.new_test)
            begun = time.perf_counter()
            runtime.kb.add(rows.texts, label=name, new_labels=True, why=_WHY)
            took = time.perf_counter() - begun
            after, kept = (_share(runtime, split) for split in (self.data.new_test, others))
        self.page.figures(
            [
                (f"its {len(self.data.new_test)} test questions", percent(before), f"-> {percent(after)}"),
                (f"the {len(others):,} others", percent(_accuracy(own, BLEND)), f"-> {percent(kept)}"),
                ("time to add it", f"{took:.2f} s", ""),
            ]
        )

    def costs(self) -> None:
        self.page.step(
            "What retrieval costs",
            "The student alone and the student with retrieval take turns on the test questions, on one thread.",
            f"reaugkd bench {self.out / BUNDLE} --data {self.out / DATA / 'test.csv'}",
        )
        texts = self.data.dataset.splits["test"].inputs()
        rows = []
        for name in (BUNDLE, MORE_BUNDLE):
            report = bench(self.out / name, texts, settings=self.job.bench)
            alone, both = (report.latencies[system].total.p50_us / 1e3 for system in (STUDENT, BLEND))
            assert report.overhead is not None  # the knowledge base has rows
            low, high = report.overhead.ci95_percent
            cost = f"{report.overhead.p50_percent:+.0f} % (95 % interval {low:+.0f} to {high:+.0f})"
            size = f"{report.setting['knowledge_base_rows']:,} rows"
            rows.append((f"median, knowledge base of {size}", f"{alone:.2f} -> {both:.2f} ms", cost))
        self.page.figures(rows)

    def files(self) -> None:
        self.page.step(
            "The bundle",
            "One folder is all that a device needs, with five Python packages and without PyTorch.",
            f"reaugkd inspect {self.out / BUNDLE}",
        )
        sizes = bundle_bytes(Bundle.open(self.out / BUNDLE))
        rows = [(name, f"{size:,} bytes") for name, size in sizes["files"].items()]
        self.page.figures([*rows, ("together", f"{sizes['total']:,} bytes")])

    def predictions(self) -> None:
        """Three test questions: one that retrieval corrects, one that it spoils, one of the new intent."""
        bundle = self.out / EDITED_BUNDLE
        self.page.step(
            "Three predictions and their neighbours",
            "The bundle of step 5 answers the first test question that only retrieval gets right, the first that only "
            "the student alone gets right, and the first of the new intent.",
            f'reaugkd predict {bundle} "QUESTION" --explain',
        )
        with Runtime.open(bundle) as runtime:
            changed = self._changed(runtime)
            examples = [changed[right] for right in (True, False) if right in changed]
            for text, label in [*examples, (self.data.new_test.texts[0], self.job.new_intent)]:
                answer = runtime.predict(text)
                alone = answer.student_probabilities
                self.page.lines(f'"{text}" ({label})')
                lines = [("answer", answer.label, answer.probability)]
                lines += [("student alone", runtime.labels[int(alone.argmax())], float(alone.max()))]
                self.page.lines(*(f"  {name:<13}  {found}, {percent(share)}" for name, found, share in lines))
                for near in answer.neighbours[:_NEIGHBOURS]:
                    self.page.lines(f"  {near.similarity:.2f}  {near.gold_label or near.label}: {near.text}")

    def _changed(self, runtime: Runtime) -> dict[bool, Row]:
        """The first test row that retrieval alone gets right (True), and the first that it gets wrong (False)."""
        found: dict[bool, Row] = {}
        test = self.data.dataset.splits["test"]
        for text, label in zip(test.texts, test.labels or (), strict=True):
            answer = runtime.predict(text)
            right = answer.label == label
            if right != (runtime.labels[int(answer.student_probabilities.argmax())] == label):
                found.setdefault(right, (text, label))
            if len(found) == 2:
                break
        return found

    def next_steps(self) -> None:
        self.page.step(
            "Your own data",
            "FILE.csv has a column of texts and a column of labels. ENCODER is a folder or a model hub id.",
            "reaugkd train --data FILE.csv --teacher ENCODER --out runs/mine",
            "reaugkd export runs/mine --out bundles/mine",
            "reaugkd eval bundles/mine --data FILE.csv",
            'reaugkd predict bundles/mine "a text" --explain',
            "reaugkd ui bundles/mine    # correct answers in the browser",
        )

    def evaluate(self, bundle: str, split: Split) -> EvalReport:
        """A bundle's answers to a labelled split, scored."""
        with Runtime.open(self.out / bundle, threads=None) as runtime:
            return evaluate_bundle(runtime, split)

    def _export(self, bundle: str, job: ExportJob) -> None:
        _clear(self.out / bundle)
        export(self.out / RUN, self.out / bundle, job)

    def _compare(self, report: EvalReport) -> None:
        self.page.figures(
            [
                ("student", percent(_accuracy(report, STUDENT)), ""),
                ("student + retrieval", percent(_accuracy(report, BLEND)), _gain(report)),
            ]
        )

    def _tfidf(self) -> float:
        """The test accuracy of TF-IDF and logistic regression; C between 10 and 100 makes no difference here."""
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        model = make_pipeline(vectorizer, LogisticRegression(C=10, max_iter=1000))
        train, test = self.splits.train, self.data.dataset.splits["test"]
        return float(model.fit(train.texts, train.labels).score(test.texts, test.labels))


def _accuracy(report: EvalReport, system: str) -> float:
    accuracy = next(row.scores["accuracy"] for row in report.rows if row.system == system)
    assert accuracy is not None  # every report has it
    return accuracy


def _gain(report: EvalReport) -> str:
    gain = report.differences["accuracy"]
    return points(gain.value, gain.interval)


def _share(runtime: Runtime, split: Split) -> float:
    """The share of rows answered with their label."""
    answers = runtime.predict_many(split.inputs())
    return sum(answer.label == label for answer, label in zip(answers, split.labels or (), strict=True)) / len(split)


def _clear(bundle: Path) -> None:
    """Remove a bundle that an earlier call made; a folder that is no bundle stays, and the export refuses it."""
    if (bundle / MANIFEST_FILE).is_file():
        remove_folder(bundle)


def _shown(model: str) -> str:
    """A model's hub id or folder, the latter from here where it is below."""
    path = Path(model)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else model
