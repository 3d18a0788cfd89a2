"""`reaugkd kb`: edits from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.command_line import call, ok, ok_json, records, refused
from support.tiny_bundle import build_tiny_bundle, tiny_texts

from reaugkd.kb.storage.ed25519 import new_key_pair


def label_of(bundle: Path, text: str) -> str:
    return str(records(ok_json(bundle, text))[0]["label"])


def other_label(bundle: Path, text: str) -> str:
    return next(label for label in "abc" if label != label_of(bundle, text))


def test_a_mistake_is_corrected_looked_up_and_taken_back(bundle: Path) -> None:
    text = "jazz at noon"
    wrong = label_of(bundle, text)
    right = other_label(bundle, text)
    done = ok("kb", "add", bundle, text, "--label", right, "--why", "a customer", "--who", "anna")
    assert done.out == "" and done.err == "edit 1: 1 added; 121 rows\n"
    assert label_of(bundle, text) == right
    log = ok("kb", "log", bundle).out
    assert log.startswith("    1  20") and "add" in log and "1 row " in log and "anna  a customer" in log
    assert ok("kb", "diff", bundle).out.split() == ["+", "1120", right, "jazz", "at", "noon"]
    assert ok("kb", "undo", bundle).err == "edit 2: 1 removed; 120 rows\n"
    assert label_of(bundle, text) == wrong and ok("kb", "diff", bundle).out == ""
    assert "undo 1" in ok("kb", "log", bundle).out
    assert "2, the last one" in ok("inspect", bundle).out


def test_labels_are_read_as_those_of_a_data_set(bundle: Path, tmp_path: Path) -> None:
    done = ok("kb", "add", bundle, "jazz at noon", "--label", " a ")
    assert done.err == "edit 1: 1 added; 121 rows\n"  # and it is predicted as a
    (tmp_path / "rows.csv").write_text("text,label\nnoon music, new one\nlate light,new one \nlate noon,A\n")
    done = ok("kb", "add", bundle, "--input", tmp_path / "rows.csv", "--new-labels")
    assert "new labels: new one, A;" in done.err and "note: labels that are nearly equal: 'A', 'a'" in done.err
    assert "still predicted" not in done.err
    assert label_of(bundle, "late light") == "new one"
    ok("kb", "relabel", bundle, "late light", "--label", "b\t")
    assert label_of(bundle, "late light") == "b"
    assert "1 removed" in ok("kb", "remove", bundle, "--of-label", " new one").err
    (tmp_path / "rows.jsonl").write_text('{"text": "x", "label": "a"}\n{"text": "y", "label": " "}\n')
    assert "row 2, column 'label': the label is missing" in refused(
        "kb", "add", bundle, "--input", tmp_path / "rows.jsonl"
    )


def test_rows_of_files_and_of_stdin(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("sentence,category\njazz at noon,a\nnoon music,new one\n")
    line = refused("kb", "add", bundle, "--input", tmp_path / "rows.csv")
    assert "rows.csv, row 3" in line and "new one" in line and "--new-labels" in line
    done = ok("kb", "add", bundle, "--input", tmp_path / "rows.csv", "--new-labels", "--json", "-")
    told = json.loads(done.out)
    assert told["seq"] == 1 and told["added"] == 2 and told["ids"] == [1120, 1121]
    assert "new labels: new one" in done.err
    assert label_of(bundle, "noon music") == "new one"
    stdin = b'{"text": "late light", "label": {"a": 0.4, "b": 0.6}}\n{"text": "jazz at noon", "label": "b"}\n'
    done = ok("kb", "add", bundle, "--input", "-", stdin=stdin)
    # Edit 2 is the fit of the classifier of new labels, which the command waits for.
    assert re.fullmatch(
        r"edit 3: 1 added, 1 relabelled; 123 rows\nedit 4: classifier of new labels fitted in \d+\.\d s\n", done.err
    )
    again = ok("kb", "add", bundle, "jazz at noon", "--label", "b")
    assert again.err == "not saved: 1 unchanged; 123 rows\n"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("text,label\njazz,\n", "row 2, column 'label': the label is missing"),
        ("text,label\n,a\n", "row 2"),
        ("text\njazz\n", "no label column"),
        ("text,label\n", "the file has no rows"),
        ("", ""),
    ],
)
def test_rows_that_cannot_be_used_leave_no_edit(bundle: Path, tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    line = refused("kb", "add", bundle, "--input", path)
    assert str(path) in line and part in line
    assert not (bundle / "generations").exists()


def test_bad_json_lines(bundle: Path) -> None:
    for line in (b'{"text": "jazz", "label": {"a": -1}}', b'{"text": "jazz", "label": {"a": 0.2}}', b'["jazz", "a"]'):
        refused("kb", "add", bundle, "--input", "-", stdin=line + b"\n")
    assert not (bundle / "generations").exists()


def test_conflicting_options_are_refused(bundle: Path, tmp_path: Path) -> None:
    assert "either TEXTs with --label, or --input" in refused("kb", "add", bundle, "jazz")
    assert "either TEXTs with --label, or --input" in refused("kb", "add", bundle, "--label", "a")
    assert "no rows are given" in refused("kb", "remove", bundle)
    assert "no rows are given" in refused("kb", "relabel", bundle, "--label", "a")
    assert "no row has this text" in refused("kb", "remove", bundle, "never seen")
    assert "no such row" in refused("kb", "remove", bundle, "--id", 7)
    assert "is unknown" in refused("kb", "remove", bundle, "--of-label", "d")
    assert "'a', perhaps" in refused("kb", "add", bundle, "jazz", "--label", "aa")
    assert "not a share" in call("kb", "add", bundle, "jazz", "--label", "a", "--guard", "lots").err
    assert "no edit to take back" in refused("kb", "undo", bundle)
    assert "there are no such edits" in refused("kb", "diff", bundle, 3)
    refused("kb", "log", tmp_path / "nothing")
    assert ok("kb", "log", bundle).out == ""


def test_rows_are_removed_and_relabelled(bundle: Path) -> None:
    ok("kb", "add", bundle, "jazz at noon", "music at night", "--label", "a")
    assert ok("kb", "relabel", bundle, "jazz at noon", "--id", 1121, "--label", "c").err.startswith(
        "edit 2: 2 relabelled"
    )
    assert label_of(bundle, "jazz at noon") == label_of(bundle, "music at night") == "c"
    assert ok("kb", "remove", bundle, "jazz at noon", "--id", 1003).err == "edit 3: 2 removed; 120 rows\n"
    whole = ok("kb", "diff", bundle).out.splitlines()
    assert [line[0] for line in whole] == ["-", "+"] and "1003" in whole[0] and "1121" in whole[1]
    assert [line[0] for line in ok("kb", "diff", bundle, 1, 2).out.splitlines()] == ["~", "~"]
    told = json.loads(ok("kb", "diff", bundle, 1, 2, "--json", "-").out)
    assert {row["id"] for row in told} == {1120, 1121} and told[0]["old"] == {"a": 1.0} and told[0]["new"] == {"c": 1.0}
    before = json.loads(ok("kb", "log", bundle, "--json", "-").out)
    assert [entry["op"] for entry in before] == ["add", "relabel", "remove"] and "key" not in json.dumps(before)
    removed = ok("kb", "remove", bundle, "--of-label", "b", "--no-auto-compact").err
    assert "removed" in removed
    assert all(near["gold_label"] != "b" for near in records(ok_json(bundle, "noon", "--explain"))[0]["neighbours"])


def test_a_preview_and_a_guard(bundle: Path) -> None:
    rows = "".join(json.dumps({"text": text, "label": "c"}) + "\n" for text in tiny_texts(100, seed=3)).encode()
    done = ok("kb", "add", bundle, "--input", "-", "--preview", "--json", "-", stdin=rows)
    flips = json.loads(done.out)["flips"]
    assert done.err.startswith("not saved: ") and f"{len(flips)} of 60 held-out rows get another label" in done.err
    assert flips and any(flip["after"] == "c" for flip in flips) and "->" in done.err
    line = refused("kb", "add", bundle, "--input", "-", "--guard", "0.5%", stdin=rows)
    assert "held-out rows" in line and "at most 0.50%" in line
    assert ok("kb", "log", bundle).out == ""
    assert ok("kb", "add", bundle, "--input", "-", "--guard", "100%", stdin=rows).err.startswith("edit 1: ")


def test_without_held_out_rows_there_is_no_guard(tmp_path: Path) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle")
    assert "no held-out rows" in refused("kb", "add", bundle, "jazz", "--label", "a", "--guard", "0.01")


def test_fold_and_verify(export: Path, bundle: Path) -> None:
    ok("kb", "add", bundle, "my secret", "--label", "a")
    ok("kb", "remove", bundle, "my secret", "--id", 1003)
    done = ok("kb", "compact", bundle, "--why", "privacy")
    assert done.err.startswith("edit 3: snapshot 1 has 119 rows; a search finds ")
    assert "privacy" in ok("kb", "log", bundle).out
    out = ok("kb", "verify", bundle, "--export", export).out
    assert out.splitlines() == [
        "3 edits, chain of hashes complete; snapshot 1, 119 rows, 0 removed and not yet erased",
        "2 edits, repeated on the export, give the same files byte for byte",
    ]
    assert "cannot be brought back" in refused("kb", "undo", bundle, 2)
    assert "a compaction cannot be taken back" in refused("kb", "undo", bundle, 3)
    assert not any(b"secret" in path.read_bytes() for path in bundle.rglob("*") if path.is_file())
    assert "needs a bundle without edits" in refused("fuse", bundle, "--out", bundle.parent / "one.onnx")
    assert "needs a bundle without edits" in refused("condense", bundle)
    journal = bundle / "generations" / "1" / "history.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b"privacy", b"secrecy"))
    assert "history.jsonl" in refused("kb", "verify", bundle)


def test_a_compaction_of_undone_edits_says_what_it_ends(bundle: Path) -> None:
    ok("kb", "add", bundle, "noon", "--label", "a")
    ok("kb", "undo", bundle, 1)
    assert "counts as edited: it has no gate, and calibrate, condense" in ok("kb", "compact", bundle).err
    assert "needs a bundle without edits" in refused("fuse", bundle, "--out", bundle.parent / "one.onnx")


def test_signed_edits(bundle: Path, tmp_path: Path) -> None:
    key = tmp_path / "owner.pem"
    new_key_pair(key)
    public = tmp_path / "owner.pub.pem"
    ok("sign", bundle, "--key", key)
    ok("kb", "add", bundle, "jazz at noon", "--label", "a", "--sign-key", key)
    ok("kb", "compact", bundle, "--sign-key", key)
    ok("kb", "add", bundle, "music", "--label", "b", "--sign-key", key)
    assert "3 edits" in ok("kb", "verify", bundle, "--require-signature", public).out
    ok("predict", bundle, "jazz", "--require-signature", public)
    assert "--unsigned" in refused("kb", "add", bundle, "night", "--label", "b")
    ok("kb", "add", bundle, "night", "--label", "b", "--unsigned")
    assert "not signed" in refused("predict", bundle, "jazz", "--require-signature", public)
    assert "not signed" in refused("kb", "verify", bundle, "--require-signature", public)
    ok("predict", bundle, "jazz")


def test_a_bundle_is_signed_before_it_is_edited_and_by_one_key(bundle: Path, tmp_path: Path) -> None:
    """A signature that would not make the bundle open is refused."""
    for name in ("owner", "other"):
        new_key_pair(tmp_path / f"{name}.pem")
    ok("sign", bundle, "--key", tmp_path / "owner.pem")
    assert "another key" in refused("kb", "add", bundle, "jazz", "--label", "a", "--sign-key", tmp_path / "other.pem")
    ok("kb", "add", bundle, "jazz", "--label", "a", "--sign-key", tmp_path / "owner.pem")
    assert "has not signed" in refused("sign", bundle, "--key", tmp_path / "other.pem")
    ok("sign", bundle, "--key", tmp_path / "owner.pem")
    ok("predict", bundle, "jazz", "--require-signature", tmp_path / "owner.pub.pem")


def test_an_edited_bundle_without_a_signature_gets_none(bundle: Path, tmp_path: Path) -> None:
    new_key_pair(tmp_path / "owner.pem")
    ok("kb", "add", bundle, "jazz", "--label", "a")
    assert "has not signed" in refused("sign", bundle, "--key", tmp_path / "owner.pem")
    assert not (bundle / "manifest.sig").exists()


def test_a_signed_bundle_is_compacted_with_the_key_or_unsigned(bundle: Path, tmp_path: Path) -> None:
    ok("sign", "--new-key", tmp_path / "key.pem")
    ok("sign", bundle, "--key", tmp_path / "key.pem")
    ok("kb", "add", bundle, "jazz", "--label", "a", "--sign-key", tmp_path / "key.pem")
    assert "--unsigned" in refused("kb", "compact", bundle)
    assert ok("kb", "compact", bundle, "--unsigned").err.startswith("edit 2: snapshot 1 ")
