"""Models, rows and recipes so small that a whole run takes a second or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PretrainedConfig,
    RobertaConfig,
    RobertaModel,
)

from reaugkd.export.modeling.encoder import EncoderClassifier, HeadConfig
from reaugkd.export.modeling.execution.tokens import TokenRows
from reaugkd.export.recipe import FitRecipe, ProjectionRecipe, Recipe, StudentRecipe, TeacherRecipe
from reaugkd.runtime.data import Dataset, Split
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer

LABELS = ("alarm", "music", "weather")
# Half of a class's words are its own, the others it shares with everyone.
OWN_WORDS = {
    "alarm": "wake clock bell snooze ring hour minute seven early timer".split(),
    "music": "song album jazz band tune guitar singer chorus drum melody".split(),
    "weather": "rain sun cloud storm snow wind forecast umbrella degree thunder".split(),
}
SHARED_WORDS = (
    "the a my please can you for me in on at it is set give tell show now later today tomorrow morning evening night "
    "home work day week one two three and or with without some more less very really again"
).split()
WORDS = [*(word for words in OWN_WORDS.values() for word in words), *SHARED_WORDS]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
FILLER = [f"filler{number}" for number in range(40)]
VOCABULARY = [*SPECIAL, *WORDS, *FILLER]
HIDDEN, LAYERS, MAX_LENGTH, POSITIONS = 32, 4, 24, 40


def tiny_tokenizer() -> Tokenizer:
    """Write a tokenizer with one token per word, lower-cased, with BERT's [CLS], [SEP] and second type for a pair."""
    vocabulary = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def bert_config(**changes: Any) -> BertConfig:
    """Four layers of 32 components; few enough positions that a text beyond MAX_LENGTH would fail."""
    settings: dict[str, Any] = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": POSITIONS,
        "initializer_range": 0.05,
    }
    return BertConfig(**{**settings, **changes})


def write_bert(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a random BERT encoder and its tokenizer as a Hugging Face folder, without a pooler."""
    torch.manual_seed(seed)
    BertModel(bert_config(**changes), add_pooling_layer=False).save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def write_classifier(folder: Path, labels: Mapping[int, str] | None, num_labels: int = 3, seed: int = 0) -> Path:
    """Write a BERT for sequence classification; ``labels`` None leaves LABEL_0, LABEL_1, ..."""
    torch.manual_seed(seed)
    names = {"id2label": dict(labels)} if labels else {"num_labels": num_labels}
    BertForSequenceClassification(bert_config(**names)).save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def write_modernbert_classifier(folder: Path, labels: Mapping[int, str]) -> Path:
    """Write a classifier whose encoder ends with a norm with weights other than ones."""
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=POSITIONS,
        local_attention=8,
        pad_token_id=0,
        id2label=dict(labels),
        reference_compile=False,
    )
    model = ModernBertForSequenceClassification(config)
    with torch.no_grad():
        model.model.final_norm.weight.uniform_(0.5, 2.0)
    model.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def write_distilbert(folder: Path) -> Path:
    """Write a model type without token_type_ids and with other names of its sizes (dim, n_layers)."""
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(VOCABULARY),
        dim=HIDDEN,
        n_layers=2,
        n_heads=2,
        hidden_dim=64,
        max_position_embeddings=POSITIONS,
        initializer_range=0.05,
    )
    DistilBertModel(config).save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def write_roberta(folder: Path) -> Path:
    """Write a model type with one token type and positions that start after the padding id."""
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=POSITIONS + 2,
        type_vocab_size=1,
        pad_token_id=0,
        initializer_range=0.05,
    )
    RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def sentence(rng: np.random.Generator, label: str) -> str:
    """Return one to nine words, at least one of them a word of the class."""
    own = rng.choice(OWN_WORDS[label], size=rng.integers(1, 4))
    shared = rng.choice(SHARED_WORDS, size=rng.integers(0, 7))
    return " ".join(rng.permutation([*own, *shared]))


def make_split(rows: int, seed: int, pairs: bool = False, source: str = "tiny") -> Split:
    """Return rows of all classes, alternating; both texts of a pair are of the class."""
    rng = np.random.default_rng(seed)
    labels = [LABELS[row % len(LABELS)] for row in range(rows)]
    texts = [sentence(rng, label) for label in labels]
    second = [sentence(rng, label) for label in labels] if pairs else None
    return Split(texts, second, labels, source, list(range(1, rows + 1)))


def make_dataset(rows: int = 240, test: int = 60, dev: int = 0, pairs: bool = False) -> Dataset:
    """Return a data set that a bag of words can classify."""
    splits = {"train": make_split(rows, 0, pairs), "test": make_split(test, 1, pairs)}
    if dev:
        splits["dev"] = make_split(dev, 2, pairs)
    return Dataset("tiny", splits, LABELS)


def fast_fit(epochs: int = 3, **changes: Any) -> FitRecipe:
    """Return fit settings that learn in a few dozen steps from random weights."""
    settings = {"batch_size": 16, "learning_rate": 2e-3, "head_learning_rate": 5e-3, "freeze_word_embeddings": False}
    return FitRecipe(epochs=epochs, **{**settings, **changes})


def tiny_recipe(**changes: Any) -> Recipe:
    """Return a recipe for the tiny models; ``changes`` are fields of Recipe."""
    settings: dict[str, Any] = {
        "max_length": MAX_LENGTH,
        "precision": "fp32",
        "heldout_share": 0.2,
        "teacher": TeacherRecipe(fit=fast_fit()),
        "projection": ProjectionRecipe(embedding_dim=16, epochs=3, batch_size=64),
        "student": StudentRecipe(layers=(0, 3), fit=fast_fit()),
    }
    return Recipe(**{**settings, **changes})


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def tiny_student(
    num_labels: int = 3,
    embedding_dim: int | None = 16,
    seed: int = 0,
    config: BertConfig | None = None,
    **head: Any,
) -> EncoderClassifier:
    """A random encoder with both heads, in evaluation mode."""
    torch.manual_seed(seed)
    encoder = BertModel(config or bert_config(), add_pooling_layer=False)
    return EncoderClassifier(encoder, HeadConfig(num_labels, embedding_dim=embedding_dim, **head)).eval()


def student_of(encoder: torch.nn.Module, num_labels: int = 3, embedding_dim: int = 16) -> EncoderClassifier:
    """Return heads on an encoder, in evaluation mode."""
    torch.manual_seed(1)
    return EncoderClassifier(encoder, HeadConfig(num_labels, embedding_dim=embedding_dim)).eval()


def tokens_of(
    inputs: Sequence[str | tuple[str, str]], folder: Path, config: PretrainedConfig | None = None
) -> TokenRows:
    """Return the rows of tokens that the training makes with a folder's tokenizer."""
    with_types = config is None or getattr(config, "type_vocab_size", 0) > 1
    return TokenRows(TextTokenizer(folder / "tokenizer.json", MAX_LENGTH), inputs, with_types, 0)


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every weight."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_states(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    """Whether both have the same names and, bit for bit, the same values."""
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())
