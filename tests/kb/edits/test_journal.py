"""The lines of the journal: a round trip, and the refusal of all other lines."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaugkd.errors import BundleIntegrityError, UsageError
from reaugkd.kb.edits.change import Change, Labelling, NewRow, Payload, Relabelling, checked_labelling
from reaugkd.kb.edits.journal import Entry, read_journal
from reaugkd.kb.storage.ed25519 import PrivateKey, new_key_pair, read_private_key, read_public_key

START = hashlib.sha256(b"the export").hexdigest()
PATH = Path("journal.jsonl")
NDIM = 4


def canonical(obj: object) -> bytes:
    return json.dumps(obj, sort_keys=True, separators=(",", ":")).encode()


def row(row_id: int, text: object = "a text", dtype: str = "i8") -> NewRow:
    key = np.arange(1, NDIM + 1, dtype=np.float32) * (row_id + 1)
    return NewRow.of(row_id, Labelling("a", {"a": 0.5, "b": 0.5}), Payload.of(key, text, dtype))  # type: ignore[arg-type]


def chain(*changes: Change, key: PrivateKey | None = None) -> list[Entry]:
    entries, before = [], START
    for seq, change in enumerate(changes, 1):
        entry = Entry(seq, "2026-11-21T19:06:29Z", "anna", "why \u2028 not", "add", change, before).sealed(key)
        entries.append(entry)
        before = entry.after
    return entries


CHANGES = (
    Change(labels=("a", "b"), add=(row(1), row(2, ("one", "two\ud800")))),
    Change(remove=(1,), restore=(7, 8)),
    Change(relabel=(Relabelling(2, Labelling("a", {"a": 1.0}), Labelling("b", None, True)),), new_label_odds=2.5),
)


def read(data: bytes, dtype: str = "i8", ndim: int = NDIM) -> list[Entry]:
    return list(read_journal(data, PATH, dtype, ndim, 0, START))


def test_round_trip() -> None:
    entries = chain(*CHANGES)
    data = b"".join(entry.line() for entry in entries)
    assert data.isascii() and data.count(b"\n") == 3
    found = read(data)
    assert [entry.line() for entry in found] == [entry.line() for entry in entries]
    assert found[2] == entries[2] and found[0].change.add[1].payload.text == ("one", "two\ud800")  # type: ignore[union-attr]


def test_the_hash_is_that_of_the_canonical_line_without_payloads() -> None:
    """The hash is computed here from the line's JSON alone, like in another program."""
    for entry in chain(*CHANGES):
        obj = json.loads(entry.line())
        assert obj.pop("after") == entry.after
        for added in obj["add"]:
            payload = json.dumps(added.pop("payload"), sort_keys=True, separators=(",", ":")).encode()
            assert added["digest"] == hashlib.sha256(payload).hexdigest()
        canonical = json.dumps(obj, sort_keys=True, separators=(",", ":")).encode()
        assert hashlib.sha256(canonical).hexdigest() == entry.after


@pytest.mark.parametrize("dtype", ["i8", "f16", "f32"])
def test_keys_come_back_as_they_are_stored(dtype: str) -> None:
    key = np.random.default_rng(0).standard_normal(NDIM).astype(np.float32) * 1e-4
    payload = Payload.of(key, None, dtype)
    entry = chain(Change(add=(NewRow.of(1, Labelling("a"), payload),)))[0]
    found = read(entry.line(), dtype)[0].change.add[0].payload
    assert found is not None
    np.testing.assert_array_equal(found.key, payload.key)
    cosine = key @ found.key.astype(np.float32) / np.linalg.norm(key) / np.linalg.norm(found.key.astype(np.float32))
    assert cosine > 0.999


@given(st.integers(0, 10**9), st.integers(1, 255))
def test_a_flipped_byte_is_found(place: int, flip: int) -> None:
    data = bytearray(b"".join(entry.line() for entry in chain(*CHANGES)))
    data[place % len(data)] ^= flip
    with pytest.raises(BundleIntegrityError) as caught:
        read(bytes(data))
    assert caught.value.path == str(PATH)


@given(st.integers(1, 10**9))
def test_a_torn_line_is_found(cut: int) -> None:
    lines = [entry.line() for entry in chain(*CHANGES)]
    data = b"".join(lines)
    data = data[: cut % len(data)]
    if data in (b"", lines[0], lines[0] + lines[1]):  # HEAD knows that lines are missing, the journal does not
        assert len(read(data)) == data.count(b"\n")
        return
    with pytest.raises(BundleIntegrityError):
        read(data)


def test_lines_out_of_their_place_are_found() -> None:
    one, two, three = (entry.line() for entry in chain(*CHANGES))
    for order in ((two, one, three), (one, three), (one, one, two), (two, three)):
        with pytest.raises(BundleIntegrityError):
            read(b"".join(order))


def resealed(obj: dict[str, object]) -> bytes:
    """Return a line with the hashes of its new content: who can write can also seal."""
    for added in obj["add"]:  # type: ignore[attr-defined]
        if isinstance(added, dict) and "payload" in added:
            added["digest"] = hashlib.sha256(canonical(added["payload"])).hexdigest()
    bare = json.loads(json.dumps(obj))
    bare.pop("after", None)
    for added in bare["add"]:
        if isinstance(added, dict):
            added.pop("payload", None)
    obj["after"] = hashlib.sha256(canonical(bare)).hexdigest()
    return canonical(obj) + b"\n"


def line_of(*changes: Change) -> dict[str, object]:
    obj: dict[str, object] = json.loads(chain(*changes)[-1].line())
    return obj


def test_resealing_alone_is_read() -> None:
    for change in CHANGES:
        assert len(read(resealed(line_of(change)))) == 1


BAD: list[tuple[tuple[object, ...], object]] = [
    (("seq",), 1.0),
    (("seq",), True),
    (("time",), 5),
    (("who",), None),
    (("op",), "destroy"),
    (("labels",), "abc"),
    (("labels", 0), ""),
    (("labels", 0), "a\x00"),
    (("labels", 0), "half \ud800"),
    (("remove",), [-1]),
    (("remove",), [2**63]),
    (("restore",), [1.5]),
    (("add",), {}),
    (("add", 0, "id"), "7"),
    (("add", 0, "labelling", "soft"), {"a": 0.5}),
    (("add", 0, "labelling", "soft"), {"a": 2.0, "b": -1.0}),
    (("add", 0, "labelling", "soft"), {"a": "1"}),
    (("add", 0, "labelling", "pin"), 1),
    (("add", 0, "labelling", "label"), 3),
    (("add", 0, "payload", "key"), ""),
    (("add", 0, "payload", "key"), "AAAAAA=="),
    (("add", 0, "payload", "key"), "AQID"),
    (("add", 0, "payload", "key"), "AQIDBA==\n"),
    (("add", 0, "payload", "text"), ["one"]),
    (("add", 0, "payload", "text"), {"sha256": "x"}),
    (("odds",), 0.0),
    (("odds",), -1.0),
    (("odds",), 1),
    (("undoes",), -1),
    (("files",), {"a": "b"}),
]


@pytest.mark.parametrize(
    "files",
    [
        None,
        {},
        {"classifier-1.npy": START, "classifier-2.npy": START},
        {"classifier-0.npy": START},
        {"classifier-01.npy": START},
        {"classifier-3.npy": START},  # the number of an edit that does not exist yet
        {"../classifier-1.npy": START},
        {"index.usearch": START},
    ],
)
def test_a_fit_names_one_file_of_an_earlier_edit(files: dict[str, str] | None) -> None:
    first = chain(CHANGES[0])[0]

    def fit(files: dict[str, str] | None, change: Change = Change()) -> bytes:
        made = Entry(2, "2026-11-21T19:06:29Z", "anna", "", "fit", change, first.after, files=files)
        return first.line() + made.sealed().line()

    assert read(fit({"classifier-1.npy": START}))[1].files == {"classifier-1.npy": START}
    for data in (fit(files), fit({"classifier-1.npy": START}, CHANGES[1])):
        with pytest.raises(BundleIntegrityError, match="damaged"):
            read(data)


@pytest.mark.parametrize(("place", "value"), BAD)
def test_a_value_that_may_not_be_is_refused_though_its_hash_be_right(place: tuple[object, ...], value: object) -> None:
    obj = line_of(CHANGES[0])
    inside: object = obj
    for name in place[:-1]:
        inside = inside[name]  # type: ignore[index]
    inside[place[-1]] = value  # type: ignore[index]
    with pytest.raises(BundleIntegrityError):
        read(resealed(obj))


@pytest.mark.parametrize("key", [[float("nan")] * 4, [float("inf"), 0.0, 0.0, 0.0], [0.0] * 4])
def test_keys_without_a_direction_are_refused(key: list[float]) -> None:
    obj = line_of(Change(add=(row(1, dtype="f32"),)))
    obj["add"][0]["payload"]["key"] = base64.b64encode(np.array(key, "<f4").tobytes()).decode()  # type: ignore[index]
    with pytest.raises(BundleIntegrityError):
        read(resealed(obj), "f32")


def test_a_line_written_in_another_way_is_refused() -> None:
    """One edit has exactly one valid line."""
    line = json.dumps(line_of(CHANGES[1])).encode() + b"\n"
    with pytest.raises(BundleIntegrityError, match="not in canonical form"):
        read(line)


def test_a_line_of_another_chain_is_refused() -> None:
    obj = line_of(CHANGES[1])
    obj["before"] = "1" * 64
    with pytest.raises(BundleIntegrityError):
        read(resealed(obj))


def test_an_erased_payload_leaves_the_chain_whole() -> None:
    entries = chain(*CHANGES)
    erased = [entry.erased(lambda row_id: row_id == 1) for entry in entries]
    data = b"".join(entry.line() for entry in erased)
    assert b"a text" not in data and b"one" in data
    found = read(data)
    assert [entry.after for entry in found] == [entry.after for entry in entries]
    assert found[0].change.add[0].payload is None and found[0].change.add[1].payload is not None


def test_the_inverse_of_the_inverse() -> None:
    change = Change(add=(row(5),), remove=(1,), relabel=CHANGES[2].relabel)
    back = change.inverse()
    assert back.remove == (5,) and back.restore == (1,) and back.relabel[0].new == change.relabel[0].old
    again = back.inverse()
    assert again.restore == (5,) and again.remove == (1,) and again.relabel == change.relabel
    assert not Change() and change.rows == 3


class TestSigned:
    @pytest.fixture
    def keys(self, tmp_path: Path) -> tuple[Path, Path]:
        paths = []
        for name in ("ours", "theirs"):
            new_key_pair(tmp_path / f"{name}.pem")
            paths.append(tmp_path / f"{name}.pem")
        return paths[0], paths[1]

    def test_only_the_owner_signs(self, keys: tuple[Path, Path]) -> None:
        ours, theirs = (read_private_key(path) for path in keys)
        entry = read(chain(CHANGES[1], key=ours)[0].line())[0]
        entry.check_signature(ours.public, PATH)
        with pytest.raises(BundleIntegrityError, match="another key"):
            entry.check_signature(theirs.public, PATH)
        with pytest.raises(BundleIntegrityError, match="not signed"):
            chain(CHANGES[1])[0].check_signature(ours.public, PATH)
        other = chain(CHANGES[2], key=ours)[0]
        moved = Entry(**{**vars(entry), "signature": other.signature})
        with pytest.raises(BundleIntegrityError, match="differs from the one that was signed"):
            moved.check_signature(ours.public, PATH)
        assert read_public_key(keys[0].with_name("ours.pub.pem")) == ours.public

    def test_a_signature_does_not_change_the_hash(self, keys: tuple[Path, Path]) -> None:
        assert chain(*CHANGES, key=read_private_key(keys[0]))[-1].after == chain(*CHANGES)[-1].after


def test_shares_are_made_to_sum_to_one() -> None:
    found = checked_labelling(Labelling("a", {"a": 0.5, "b": 0.499, "c": 0.0}))
    assert found.soft == {"a": 0.5 / 0.999, "b": 0.499 / 0.999}
    for bad in ({}, {"a": 0.5}, {"a": -0.1, "b": 1.1}, {"a": float("nan")}):
        with pytest.raises(UsageError, match="no distribution"):
            checked_labelling(Labelling(None, bad))
    with pytest.raises(UsageError, match="neither"):
        checked_labelling(Labelling(None))
