"""`reaugkd kb review` and `reaugkd suggest`: wrong labels, and what to label next."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path

from support.command_line import call, ok, ok_json, records, refused
from support.tiny_bundle import build_tiny_bundle

from reaugkd import Runtime


def test_the_listed_lines_correct_the_labels(tmp_path: Path) -> None:
    bundle = build_tiny_bundle(tmp_path / "a bundle", labels=("it's a", "b; rm x", "c"))
    done = ok("kb", "review", bundle, "--below", "20%")
    comments, lines = done.out.splitlines()[::2], done.out.splitlines()[1::2]
    assert len(comments) == len(lines) > 1 and all(comment.startswith("# ") for comment in comments)
    found = json.loads(ok("kb", "review", bundle, "--below", "0.2", "--json", "-").out)
    assert [issue["relabel"] for issue in found["issues"]] == [
        line
        for line in ok("kb", "review", bundle, "--below", "20%", "--json", tmp_path / "out.json").out.splitlines()
        if line.startswith("reaugkd")
    ]
    assert json.loads((tmp_path / "out.json").read_text()) == found
    first = found["issues"][0]
    assert f"{first['label']} (" in comments[0] and f"{first['suggested_probability']:.0%}" in comments[0]
    assert f"{found['checked']} rows checked, {found['unlabelled']} without a gold label left out: " in done.err
    program, *words = shlex.split(found["issues"][0]["relabel"])
    assert program == "reaugkd" and words[-1] == first["suggested"]
    ok(*words)
    with Runtime.open(bundle) as runtime:
        row = next(row for row in range(64) if runtime.knowledge_base.id(row) == first["id"])
        assert runtime.labels[runtime.knowledge_base.label(row)] == first["suggested"]
    after = ok("kb", "review", bundle, "--below", "20%")
    assert f"--id {first['id']} " not in after.out and "1 from edits left out" in after.err
    assert "from edits" not in ok("kb", "review", bundle, "--edited").err


def test_rows_of_digests_are_listed_by_their_ids(tmp_path: Path) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle", texts="hash")
    done = ok("kb", "review", bundle, "--below", "100%")
    assert "(the bundle stores no texts)" in done.out and " --id 10" in done.out
    assert all(issue["text"] is None for issue in json.loads(ok("kb", "review", bundle, "--json", "-").out)["issues"])


def test_chosen_texts_can_be_labelled_and_added(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("jazz at noon\nlate light\n\njazz at noon\ncheap bread and milk\nnoon, music\n")
    done = ok("suggest", bundle, "--input", tmp_path / "new.txt", "--count", 3)
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert len(rows) == 3 and {row["label"] for row in rows} == {""} and all("%) or " in row["reason"] for row in rows)
    assert "5 texts read, 3 chosen" in done.err
    assert "note: rows without a usable text are left out" in done.err and "row 3" in done.err
    found = json.loads(ok("suggest", bundle, "--input", tmp_path / "new.txt", "--count", 3, "--json", "-").out)
    assert [(one["text"], one["reason"]) for one in found] == [(row["text"], row["reason"]) for row in rows]
    lines = (tmp_path / "new.txt").read_text().splitlines()
    assert all(lines[one["row"] - 1] == one["text"] for one in found)
    assert "the label is missing" in refused("kb", "add", bundle, "--input", "-", stdin=_jsonl(rows))
    (tmp_path / "labelled.csv").write_text(done.out.replace(",,", ",c,"))
    assert "3 added" in ok("kb", "add", bundle, "--input", tmp_path / "labelled.csv").err
    assert {records(ok_json(bundle, row["text"]))[0]["label"] for row in rows} == {"c"}
    left = ok("suggest", bundle, "--input", "-", stdin=(tmp_path / "new.txt").read_bytes())
    assert "5 texts read, 1 chosen" in left.err


def test_pairs(pair_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2\njazz,noon\n")
    assert ok("suggest", pair_bundle, "--input", tmp_path / "pairs.csv").out.startswith(
        "text,text_pair,label,reason\njazz,noon,,"
    )
    assert ok("kb", "review", pair_bundle, "--below", "100%").out.count(" | ") > 0


def test_wrong_calls_are_refused(bundle: Path, tmp_path: Path) -> None:
    assert "not a share" in call("kb", "review", bundle, "--below", "lots").err
    assert "below is unusable" in refused("kb", "review", bundle, "--below", "0")
    assert "--input" in call("suggest", bundle).err
    assert "nothing.txt" in refused("suggest", bundle, "--input", tmp_path / "nothing.txt")
    assert call("suggest", bundle, "--input", "-", "--count", 0).code == 2
    (tmp_path / "there.json").write_text("")
    assert "there.json" in refused("kb", "review", bundle, "--json", tmp_path / "there.json")


def _jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
