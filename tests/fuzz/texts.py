"""Bytes as a text, and as a stream of `predict`: an answer that is a distribution, or an error of the package's.

python -m fuzz texts --count 100000
"""

from __future__ import annotations

import codecs
import io
import json
import random
import sys
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from reaugkd.errors import ReaugkdError, TextError
from reaugkd.runtime.data import read_text_rows
from reaugkd.runtime.data.formats import FORMATS
from reaugkd.runtime.inference.prediction import Prediction
from reaugkd.runtime.output.prediction_stream import PredictOptions, answer_stream
from reaugkd.runtime.runtime import Runtime

from .common import scratch

_STREAMS = [one.name for one in FORMATS if not one.binary]
_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)

# What has tripped readers of texts before; each also as a part of the others (`common.mutants` splices).
PIECES = {
    "plain": "call the artist at noon",
    "nothing": "",
    "white space": " \t\r\x0b\x0c\x1c\x85\xa0\u1680\u2000\u2028\u2029\u202f\u205f\u3000",
    "NUL": "call\0noon\0",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "emoji": "😀👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿🇩🇪👍🏽",
    "marks": "e" + "\u0301\u0308\u20dd\u0489" * 50,
    "marks alone": "\u0301" * 40,
    "right to left": "שלום مرحبا \u202ecall\u202c \u2067noon\u2069 \u200f\u061c",
    "zero width": "c\u200ba\u200cl\u200dl\ufeff\u2060\u180e",
    "zero width alone": "\u200b\u200c\u200d\ufeff",
    "surrogates": "\ud800 call \udfff\udc80",
    "not characters": "\ufffe\uffff\U0010ffff\ufdd0\ue000\U000f0000",
    "case that grows": "İıſßΐﬃŉǰΰև" * 5,
    "forms that grow": "ﷺ" * 20 + "㌀㍿ⅷ½Å㎏",
    "hangul": "각각한글" + "\u1100" * 20,
    "chinese": "打电话给艺术家𠀀㐀豈" * 3,
    "indic": "नमस्ते தமிழ் ကျေးဇူး ស្វាគមន៍",
    "brackets": "[CLS] [SEP] [PAD] [UNK] [MASK] <s> </s> ## ##a ▁ Ġ Ċ",
    "quotes": '"call""noon",\'x\',\\"\\u0041 \\ud800',
    "JSON": '{"text": "call", "label": null}\n["a", "b"]\n"x"\n{"text": 1e999}\n[[[[',
    "CSV": 'text,label\n"call\nnoon",a\n"never closed,b\nx,y,z\n',
    "TSV": "text\tlabel\ncall\ta\nx\n\t\t\n",
    "a long word": "x" * 3000,
    "many words": "noon " * 600,
    "digits": "1" * 500 + " ٣४๕𝟗",
    "one letter": "a",
    "line ends": "a\r\nb\rc\n\n\nd\u0085e\u2028f",
}


@cache
def runtimes() -> list[Runtime]:
    """Open the tiny bundle with its own tokenizer, and with BERT's normalisation."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from support.tiny_bundle import build_tiny_bundle, reseal

    found = []
    for bert in (False, True):
        path = build_tiny_bundle(scratch() / "bundle", rows=40)
        if bert:
            file = path / "student/tokenizer.json"
            obj = json.loads(file.read_text())
            flags = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
            obj["normalizer"], obj["pre_tokenizer"] = {"type": "BertNormalizer", **flags}, {"type": "BertPreTokenizer"}
            more = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
            obj["model"] = {**obj["model"], "type": "WordPiece", **more}
            file.write_text(json.dumps(obj))
            reseal(path)
        found.append(Runtime.open(path))
    warnings.simplefilter("error")  # a warning of NumPy's is a number that is none
    return found


@cache
def seeds() -> list[bytes]:
    """Return every kind of character in UTF-8, some invalid bytes, and all of them together."""
    found = [text.encode("utf-8", "surrogatepass") for text in PIECES.values()]
    latin = "caf\xe9 na\xefve".encode("latin-1")
    return [*found, latin, "call noon".encode("utf-16"), b"\xff\xfe\xfd", b"\xc0\x80\xed\xa0\x80", b" ".join(found)]


def check(data: bytes) -> None:
    """Raise an error if the input breaks a promise."""
    rng = random.Random(len(data))
    runtime = rng.choice(runtimes())
    for errors in ("replace", "surrogateescape"):
        text = data.decode("utf-8", errors)
        with suppress(TextError):
            check_answer(runtime.predict(text))
    check_stream(runtime, data, rng.choice(_STREAMS))


def check_answer(answer: Prediction) -> None:
    """Check the label and the distributions."""
    assert answer.label in answer.labels
    for probabilities in (answer.probabilities, answer.student_probabilities, answer.retrieval_probabilities):
        assert probabilities is not None and (probabilities >= 0).all()
        assert abs(float(probabilities.sum(dtype=np.float64)) - 1) < 1e-5


def check_stream(runtime: Runtime, data: bytes, kind: str) -> None:
    """Predict the bytes like `predict --input -`: one record for each row, a prediction or an error."""
    out = io.StringIO()
    try:
        records = list(read_text_rows(io.BytesIO(data), kind))
        answer_stream(runtime, records, PredictOptions("jsonl", source="-"), out)
    except ReaugkdError:  # of the whole stream: no column can be told, or it is UTF-16
        return
    lines = out.getvalue().split("\n")[:-1]
    assert len(lines) == len(records)
    for line, record in zip(lines, records, strict=True):
        line.encode()
        obj = json.loads(line)
        assert obj["row"] == record.row
        if "error" not in obj:
            assert abs(sum(obj["probabilities"].values()) - 1) < 1e-5
    if kind == "txt" and b"\n" in data and not data.startswith(_OTHER_MARKS):
        assert len(lines) == len(data.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")) or not lines
