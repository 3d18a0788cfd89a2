"""Small tokenizers of every kind with a prunable vocabulary: gaps, added tokens, byte pieces and unused pieces."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from support import tiny_models as tinymodels

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NEVER_SEEN = "mjqz"  # letters of no word here


def corpus(rows: int = 200) -> Iterator[str]:
    """Sentences of the tiny models' words, with endings, capitals, numbers and marks."""
    rng = np.random.default_rng(5)
    for _ in range(rows):
        words = rng.choice(tinymodels.WORDS, size=6).tolist()
        words[1] += rng.choice(["s", "ed", "ing", "er", ""])
        yield f"{words[0].capitalize()} {' '.join(words[1:])}, {rng.integers(100)} # über{rng.choice(['!', '?', '…'])}"


def word_pieces() -> Tokenizer:
    """Return a tokenizer like BERT's: lower case, separate punctuation, [unused] pieces first, one added token."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=230, special_tokens=[SPECIAL[0], "[unused1]", "[unused2]", *SPECIAL[1:]], show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if "unused" not in token["content"]]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_tokens(["snooze hour"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 4), ("[SEP]", 5)]
    )
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]", length=20)
    tokenizer.enable_truncation(20)
    return tokenizer


def bare_word_pieces() -> Tokenizer:
    """Return a tokenizer that keeps punctuation in words, so that ## can be part of a text."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(vocab_size=260, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator([*corpus(), "a## ##a a#s ##s ###"], trainer)
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return tokenizer


def byte_level() -> Tokenizer:
    """Return a tokenizer like RoBERTa's, special tokens first and the mask last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), processors.RobertaProcessing(("</s>", 2), ("<s>", 0))]
    )
    return tokenizer


def letter_pairs() -> Tokenizer:
    """Return merges of letters with an end-of-word mark, and a piece that two merges give."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=250, special_tokens=["[UNK]"], end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.decoder = decoders.BPEDecoder()
    content = json.loads(tokenizer.to_str())
    model = content["model"]
    for left, right in (("r", "a"), ("ra", "in"), ("r", "ain"), ("a", "in")):
        for piece in (left, right, left + right):
            model["vocab"].setdefault(piece, len(model["vocab"]))
        if [left, right] not in model["merges"]:
            model["merges"].append([left, right])
    return Tokenizer.from_str(json.dumps(content))


def _likelihoods() -> list[tuple[str, float]]:
    """Return all frequent strings of up to four characters, and every character."""
    counts: Counter[str] = Counter()
    for line in corpus():
        line = "▁" + line.replace(" ", "▁")
        for size in (1, 2, 3, 4):
            counts.update(line[start : start + size] for start in range(len(line) - size + 1))
    frequent = [piece for piece, count in counts.items() if len(piece) == 1 or count > 20]
    total = sum(counts[piece] for piece in frequent)
    return sorted(((piece, float(np.log(counts[piece] / total))) for piece in frequent), key=lambda pair: -pair[1])


def unigram() -> Tokenizer:
    """Return a tokenizer like XLM-R's."""
    tokenizer = Tokenizer(models.Unigram([("<pad>", 0.0), ("<unk>", 0.0), ("</s>", 0.0), *_likelihoods()], 1, False))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "<unk>", "</s>", "<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)]
    )
    return tokenizer


def unigram_with_bytes() -> Tokenizer:
    """Return a tokenizer with byte pieces for unknown characters, and a piece with an unknown character."""
    in_bytes = [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    pieces = [piece for piece in _likelihoods() if piece[0] != "ü"]
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *in_bytes, *pieces], 0, True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    return tokenizer


def bert() -> Tokenizer:
    """`word_pieces` without its added token with a space, and with others."""
    content = json.loads(word_pieces().to_str())
    content["added_tokens"] = [one for one in content["added_tokens"] if " " not in one["content"]]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_tokens(
        [
            *("<url>", "alarm!", AddedToken("?!?", lstrip=True, rstrip=True)),
            *(AddedToken(word, single_word=True) for word in ("Snooze", "hour!")),
        ]
    )
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "word pieces": word_pieces,
    "bare word pieces": bare_word_pieces,
    "byte level": byte_level,
    "letter pairs": letter_pairs,
    "unigram": unigram,
    "unigram with bytes": unigram_with_bytes,
}


PIECES = [
    *"alarm Music über İstanbul ﬁsh 1 100 привет Ώρα don't we'll ŉ e 中文 한 ᄀ !? ?!? `` '' ... 👩\u200d👧".split(" "),
    *".,!?#-_/<>[]'`\"\t\n\r\0\u0301\u0308\u00a0\u2003\u200b\u200d\ufeff¨´…ﷺ😀▁Ġ",
    *("##s", "<0x41>", "snooze hour", "hour!", "Snooze", "<url>", "alarm!", "</s>", "<mask>", *SPECIAL),
]
"""Pieces of texts that tokenizers treat in different ways."""


def write(tokenizer: Tokenizer, folder: Path) -> Path:
    """The tokenizer.json of a folder that is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"
