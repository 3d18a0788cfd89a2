from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_models as tinymodels
from support import tokenizer_kinds as tokenizerkinds
from support.tokenizer_kinds import KINDS, NEVER_SEEN
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from reaugkd.errors import ModelError
from reaugkd.export.vocabulary.model_tokens import model_tokens
from reaugkd.export.vocabulary.prune import Pruned, Vocabulary

LINES = list(tokenizerkinds.corpus(60))
LETTERS = sorted(set("".join(LINES)))
WORDS = sorted({word for line in LINES for word in line.split()})
UNKNOWN = {"[UNK]", "<unk>"}
texts = st.one_of(
    st.lists(st.sampled_from([*WORDS, "snooze hour", "##s", "a##b", "[CLS]", "<0x0A>"]), max_size=8).map(" ".join),
    st.text(st.sampled_from([*LETTERS, *NEVER_SEEN, "é", "中", "\u0301", "\u2581", "\t", "🙂", "Ġ"]), max_size=30),
    st.text(max_size=12),
)


@dataclass(frozen=True)
class Kind:
    full: Tokenizer
    vocabulary: Vocabulary

    def pruned(self, used: list[str], seed: int = 0, at_least: int = 0) -> tuple[Pruned, Tokenizer]:
        ids = {id_ for text in used for id_ in self.full.encode(text).ids}
        every = self.vocabulary.candidates()
        others = every[seed % len(every) :] + every[: seed % len(every)]
        made = self.vocabulary.pruned(ids, at_least, others)
        return made, whole(Tokenizer.from_str(made.tokenizer))


def whole(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@pytest.fixture(scope="module")
def make_kind(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Kind]:
    made: dict[str, Kind] = {}

    def make(name: str) -> Kind:
        if name not in made:
            path = tokenizerkinds.write(KINDS[name](), tmp_path_factory.mktemp("kind"))
            made[name] = Kind(whole(Tokenizer.from_file(str(path))), Vocabulary(path))
        return made[name]

    return make


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, make_kind: Callable[[str], Kind]) -> Kind:
    return make_kind(request.param)


@settings(deadline=None, max_examples=50)
@given(st.lists(texts, max_size=3), texts, st.integers(0, 10**6), st.integers(0, 300))
def test_kept_pieces_split_as_before_and_nothing_becomes_unknown(
    make_kind: Callable[[str], Kind], used: list[str], text: str, seed: int, at_least: int
) -> None:
    for name in KINDS:
        kind = make_kind(name)
        made, pruned = kind.pruned(used, seed, at_least)
        wanted, found = kind.full.encode(text), pruned.encode(text)
        if {*wanted.ids} <= {*made.old_ids}:
            assert [made.old_ids[new] for new in found.ids] == wanted.ids, name
            assert found.tokens == wanted.tokens and found.type_ids == wanted.type_ids
        assert (UNKNOWN & {*found.tokens}) <= {*wanted.tokens}, name
        assert kind.full.decode([made.old_ids[new] for new in found.ids]) == kind.full.decode(wanted.ids), name
        for one in used:
            assert pruned.encode(one).tokens == kind.full.encode(one).tokens, name


def test_other_texts_are_tokenized_differently(kind: Kind) -> None:
    """The properties above need texts that are tokenized differently."""
    made, pruned = kind.pruned([LINES[0]])
    assert len(made.old_ids) < kind.full.get_vocab_size() and len(pruned.get_vocab()) == len(made.old_ids)
    longer = [len(pruned.encode(line)) - len(kind.full.encode(line)) for line in LINES]
    assert longer[0] == 0 and sum(more > 0 for more in longer) > len(longer) / 2


def test_only_required_tokens_are_kept(kind: Kind) -> None:
    made, pruned = kind.pruned([])
    content = json.loads(kind.full.to_str())
    vocabulary = kind.full.get_vocab(with_added_tokens=False)
    kept = pruned.get_vocab(with_added_tokens=True)
    assert sorted(kept.values()) == list(range(len(kept)))
    assert all(made.old_ids[new] == kind.full.token_to_id(piece) for piece, new in kept.items())
    for piece in vocabulary:
        if len(piece) == 1 or (piece.startswith("##") and len(piece) == 3):
            assert piece in kept
    assert {token["content"] for token in content["added_tokens"]} <= kept.keys()
    assert UNKNOWN & vocabulary.keys() <= kept.keys()
    long = [piece for piece in kept if len(piece.removeprefix("##").removesuffix("</w>")) > 1]
    special = {*UNKNOWN, *(token["content"] for token in content["added_tokens"])}
    least = content["model"]["vocab"][-1][0] if content["model"]["type"] == "Unigram" else None
    assert {piece for piece in long if not piece.startswith("<0x")} <= special | {least}


def test_others_are_added_in_order_up_to_the_number(kind: Kind) -> None:
    alone = set(kind.pruned([])[0].old_ids)
    every = kind.vocabulary.candidates()
    for order in (every, every[::-1]):
        made = set(kind.vocabulary.pruned([], len(alone) + 15, order).old_ids)
        assert alone < made and len(made) - len(alone) >= 15
        if json.loads(kind.full.to_str())["model"]["type"] == "BPE":
            assert len(made) - len(alone) < 25  # the parts of a kept token are kept
        else:
            assert len(made) - len(alone) == 15
        first = next(piece for piece in order if piece not in alone)
        assert first in made
    everything = kind.vocabulary.pruned([], 10**6, every)
    assert set(every) <= set(everything.old_ids)
    assert set(kind.vocabulary.pruned([], 3, every).old_ids) == alone


def test_only_candidates_occur_in_texts(make_kind: Callable[[str], Kind]) -> None:
    kind = make_kind("word pieces")
    tokens = {kind.full.id_to_token(piece) for piece in kind.vocabulary.candidates()}
    assert not tokens & {"[unused1]", "[unused2]"}
    assert {"a", "##s"} <= tokens and len(tokens) > 150
    assert "[unused1]" in kind.full.get_vocab()


def test_every_piece_kept_is_the_same_tokenizer(kind: Kind) -> None:
    every = range(kind.full.get_vocab_size())
    made = kind.vocabulary.pruned(every)
    assert made.old_ids == tuple(every)
    again = whole(Tokenizer.from_str(made.tokenizer))
    assert json.loads(again.to_str()) == json.loads(kind.full.to_str())


def test_the_same_pieces_give_the_same_bytes(kind: Kind) -> None:
    first, again = (kind.vocabulary.pruned(ids, 150, kind.vocabulary.candidates()) for ids in ((9, 4, 7), (7, 9, 4)))
    assert first == again
    assert json.loads(first.tokenizer)["version"] == "1.0"


def test_all_ids_in_the_file_are_renumbered(make_kind: Callable[[str], Kind]) -> None:
    made, pruned = make_kind("word pieces").pruned(["please wake me"])
    content = json.loads(made.tokenizer)
    assert {token["content"]: token["id"] for token in content["added_tokens"]} == {
        "[PAD]": 0,
        "[UNK]": 1,
        "[CLS]": 2,
        "[SEP]": 3,
        "[MASK]": 4,
        "snooze hour": len(made.old_ids) - 1,
    }
    assert [item["ids"] for item in content["post_processor"]["special_tokens"].values()] == [[2], [3]]
    assert content["padding"]["pad_id"] == 0
    pair = pruned.encode("please snooze hour", "wake")
    assert pair.tokens == ["[CLS]", "please", "snooze hour", "[SEP]", "wake", "[SEP]"]
    assert pair.ids == [pruned.token_to_id(token) for token in pair.tokens]
    assert pair.type_ids == [0, 0, 0, 0, 1, 1]
    roberta, tokenizer = make_kind("byte level").pruned([])
    ends = json.loads(roberta.tokenizer)["post_processor"]["processors"][1]
    assert (ends["cls"], ends["sep"]) == (["<s>", 0], ["</s>", 2])
    assert tokenizer.token_to_id("<mask>") == len(roberta.old_ids) - 1


def test_special_tokens_that_are_not_added_tokens_are_kept(tmp_path: Path) -> None:
    """As in the tokenizers of these tests: the file names [CLS] in its post-processor alone."""
    tokenizer = Tokenizer(models.WordPiece({"a": 0, "##a": 1, "aa": 2, "[UNK]": 3, "[CLS]": 4, "[PAD]": 5}))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[CLS]", 4), ("[CLS]", 4))
    tokenizer.enable_padding(pad_id=5, pad_token="[PAD]")
    made = Vocabulary(tokenizerkinds.write(tokenizer, tmp_path)).pruned([])
    assert made.old_ids == (0, 1, 3, 4, 5)
    assert Tokenizer.from_str(made.tokenizer).encode("aa").tokens == ["[CLS]", "a", "##a", "[CLS]"]
    assert json.loads(made.tokenizer)["padding"]["pad_id"] == 4


def refusal(tokenizer: Tokenizer) -> str:
    with pytest.raises(ModelError, match="without --vocabulary") as caught:
        model_tokens(tokenizer)
    return str(caught.value)


def test_other_kinds_are_refused() -> None:
    assert "kind of tokenizer cannot be pruned; found WordLevel" in refusal(tinymodels.tiny_tokenizer())


def test_pieces_with_characters_that_are_no_pieces_are_refused() -> None:
    """Without "bad" the text "bad" would become unknown."""
    for vocabulary in ({"bad": 0, "b": 1, "##a": 2}, {"bad": 0, "##a": 1, "##d": 2}, {"##bad": 0, "##a": 1, "##d": 2}):
        pieces = {**vocabulary, "[UNK]": 3}
        assert "cannot spell" in refusal(Tokenizer(models.WordPiece(pieces, unk_token="[UNK]")))
    assert "found bad;" in refusal(
        Tokenizer(models.Unigram([("<unk>", 0.0), ("b", -1.0), ("a", -1.0), ("bad", -1)], 0))
    )
    words = models.BPE({"b": 0, "a": 1, "bad": 2}, [], ignore_merges=True)
    assert "found bad;" in refusal(Tokenizer(words))


def test_a_piece_that_no_text_contains_need_not_be_spelled() -> None:
    pieces = {"b": 0, "##a": 1, "##b": 2, "a": 3, "b!": 4, "##!a": 5, "[UNK]": 6}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    assert "b!" in refusal(tokenizer)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    assert model_tokens(tokenizer).required == {"a", "b", "##a", "##b", "[UNK]"}


def test_words_that_are_not_split(tmp_path: Path) -> None:
    """With ignore_merges a word that is a piece needs no merges; without its piece it is merged."""
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "bc": 5}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b"), ("b", "c")], ignore_merges=True))
    path = Vocabulary(tokenizerkinds.write(tokenizer, tmp_path))
    assert Tokenizer.from_str(path.pruned([4]).tokenizer).encode("abc").tokens == ["abc"]
    assert Tokenizer.from_str(path.pruned([3]).tokenizer).encode("abc").tokens == ["ab", "c"]
    assert Tokenizer.from_str(path.pruned([]).tokenizer).encode("abc").tokens == ["a", "b", "c"]


def test_the_cost_of_an_unknown_character_is_unchanged(tmp_path: Path) -> None:
    """Its price is ten below the least likely piece: with zz gone, bytes and xy would be the better path."""
    in_bytes = [(f"<0x{byte:02X}>", -60.0) for byte in range(256)]
    own = [("x", -60.0), ("y", -60.0), ("xy", -1.0), ("üx", -45.0), ("zz", -100.0)]
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *in_bytes, *own], 0, True))
    assert tokenizer.encode("üxy").tokens == ["üx", "y"]
    used = [tokenizer.token_to_id(piece) for piece in ("üx", "y", "xy")]
    made = Vocabulary(tokenizerkinds.write(tokenizer, tmp_path)).pruned(used)
    assert Tokenizer.from_str(made.tokenizer).encode("üxy").tokens == ["üx", "y"]


def test_the_ids_of_texts_and_pairs_are_whole_and_unpadded(make_kind: Callable[[str], Kind]) -> None:
    kind = make_kind("word pieces")
    found = kind.vocabulary.ids_of(["wake", ("wake", "the song " * 300 + "bell")], "here")
    name = kind.full.id_to_token
    assert {name(piece) for piece in found[0]} == {"[CLS]", "[SEP]", "wake"}
    assert {name(piece) for piece in found[1]} >= {"wake", "the", "song", "bell"}
    assert 0 not in found[0]
