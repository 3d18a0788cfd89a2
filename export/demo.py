"""The demo: the main job, whole and offline, on the corpus that the project brings along."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from ..kb.storage.atomic import atomic_directory
from ..runtime.benchmark.bench import bench
from ..runtime.benchmark.report import format_bench
from ..runtime.bundle.manifest import MANIFEST_FILE
from ..runtime.evaluation.evaluate import evaluate_bundle
from ..runtime.evaluation.report import format_evaluation
from ..runtime.output.prediction_formats import row_writer
from ..runtime.runtime import Runtime
from .bundle.write import ExportJob, export
from .corpus import generate
from .onnx.export import detect_target
from .recipe import FitRecipe, ProjectionRecipe, Recipe, StudentRecipe, TeacherRecipe
from .training.evaluate_run import run_probabilities
from .training.run_folder import remove_folder
from .training.train import TrainJob, train

TRAIN_ROWS = 8000
VOCABULARY = 4000
HIDDEN, LAYERS, HEADS = 192, 4, 6
STUDENT_LAYERS = (0, 3)
ASKED = (
    "wake me up at half past six tomorrow",
    "make it a bit darker in the bedroom",
    "how do you say thank you in polish",
)

Say = Callable[[str], object]


def run_demo(out: Path, seed: int, say: Say) -> None:
    """Run the demo in the folder ``out``; what a call before left there is used again where it still holds.

    Args:
        out: the folder; the corpus, the run and the bundle go below it.
        seed: of everything.
        say: takes each line of the report.
    """
    begun = time.monotonic()
    dataset = generate(train_rows=TRAIN_ROWS, seed=seed)
    train_rows, test_rows = len(dataset.splits["train"]), len(dataset.splits["test"])
    say(f"corpus: {train_rows} train and {test_rows} test rows of {len(dataset.label_names)} intents, for example")
    for text in dataset.splits["test"].texts[:3]:
        say(f"    {text}")
    start = out / "untrained-teacher"
    remove_folder(start)  # made again in a second: one left by another seed or corpus would be a wrong one
    write_untrained_encoder(dataset.splits["train"].texts, start, seed)
    say(f"training a teacher of {LAYERS} layers from scratch, then its student of {len(STUDENT_LAYERS)} ...")
    train(dataset, TrainJob(str(start), demo_recipe(seed), redo=True), out / "run")
    bundle = out / "bundle"
    if (bundle / MANIFEST_FILE).is_file():  # anything else there is not ours to remove
        remove_folder(bundle)
    export(out / "run", bundle, ExportJob(detect_target()))
    runtime = Runtime.open(bundle)
    split = dataset.splits["test"]
    report = evaluate_bundle(runtime, split, extra=run_probabilities(out / "run", split, runtime.labels))
    say("\nthe test split, of phrasings that train never shows:\n" + format_evaluation(report))
    say("\nlatency of one text, one thread:\n" + format_bench(bench(bundle, split.inputs())))
    say("\nthree predictions and the neighbours behind them:")
    _predict(runtime, ASKED, say)
    say(f"\n{time.monotonic() - begun:.0f} s. {next_steps(bundle)}")


def demo_recipe(seed: int) -> Recipe:
    """The recipe of the demo: everything starts from random weights, so nothing is frozen and rates are higher."""
    scratch = FitRecipe(epochs=8, learning_rate=1e-3, head_learning_rate=1e-3, freeze_word_embeddings=False)
    return Recipe(
        seed=seed,
        max_length=48,
        teacher=TeacherRecipe(dropout=0.2, fit=scratch),
        projection=ProjectionRecipe(embedding_dim=64),
        student=StudentRecipe(
            layers=STUDENT_LAYERS,
            fit=FitRecipe(epochs=5, learning_rate=5e-4, head_learning_rate=1e-3, freeze_word_embeddings=False),
        ),
    )


def write_untrained_encoder(texts: Sequence[str], folder: Path, seed: int) -> None:
    """A small BERT with random weights and a WordPiece vocabulary learnt from the texts, as a Hugging Face folder."""
    tokenizer = word_piece(texts)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * HIDDEN,
        max_position_embeddings=64,
    )
    with atomic_directory(folder) as temporary:
        BertModel(config, add_pooling_layer=False).save_pretrained(temporary)
        tokenizer.save(str(temporary / "tokenizer.json"))


def word_piece(texts: Sequence[str]) -> Tokenizer:
    """BERT's kind of tokenizer, its vocabulary counted in ``texts``: the same at every call.

    The library's own trainer breaks ties by the order of a hash table, which differs from process to process.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *_pieces(words)][:VOCABULARY]
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


def _pieces(words: Counter[str]) -> list[str]:
    """Every character, then every word seen twice, then the parts of words: each the most frequent first."""
    characters: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 1, len(word) + 1):
                piece = f"{'##' * (start > 0)}{word[start:end]}"
                (characters if end == start + 1 else parts)[piece] += count
    repeated = Counter({word: count for word, count in words.items() if count > 1})
    ranked = (sorted(found, key=lambda piece: (-found[piece], piece)) for found in (characters, repeated, parts))
    return list(dict.fromkeys(piece for pieces in ranked for piece in pieces))


def _predict(runtime: Runtime, texts: Sequence[str], say: Say) -> None:
    class Lines:
        def write(self, text: str) -> None:
            say(text.removesuffix("\n"))

    write = row_writer("table", Lines(), explain=True, labels=runtime.labels)
    for row, text in enumerate(texts, start=1):
        write(row, text, runtime.predict(text))


def next_steps(bundle: Path) -> str:
    """What to type next for one's own data."""
    return f"""Next, with your own words and your own data:
    reaugkd predict {bundle} "remind me to call anna" --explain
    reaugkd train --data FILE.csv --teacher MODEL --out runs/mine     (MODEL: a hub id or a local folder)
    reaugkd export runs/mine --out bundles/mine
    reaugkd eval bundles/mine --data FILE.csv --run runs/mine
    reaugkd bench bundles/mine"""
