from __future__ import annotations

import subprocess
import sys

from reaugkd.export.demo import VOCABULARY, word_piece

TEXTS = ["wake me up at seven", "wake the kids up at eight", "play a song by the sea", "Seven songs, please!"] * 3
PRINT = "import sys; from reaugkd.export.demo import word_piece; print(word_piece(sys.argv[1:]).to_str())"


def test_the_vocabulary_is_the_same_in_every_process() -> None:
    """The demo promises the same accuracies at every run, and a hash table's order is a process's own."""
    other = subprocess.run([sys.executable, "-c", PRINT, *TEXTS], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == word_piece(TEXTS).to_str()


def test_the_vocabulary_holds_the_words_and_spells_out_the_others() -> None:
    tokenizer = word_piece(TEXTS)
    assert tokenizer.get_vocab_size() <= VOCABULARY
    assert tokenizer.encode("Wake me").tokens == ["[CLS]", "wake", "me", "[SEP]"]
    assert "[UNK]" not in tokenizer.encode("wakes eighty pets").tokens
    assert tokenizer.encode("wake 7").tokens == ["[CLS]", "wake", "[UNK]", "[SEP]"]
    assert [tokenizer.id_to_token(number) for number in range(4)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
