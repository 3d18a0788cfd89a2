"""The journal's lines: what is written is read, and nothing else is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaugkd.errors import BundleIntegrityError, UsageError
from reaugkd.kb.change import Change, Labelling, NewRow, Payload, Relabelling, checked_labelling
from reaugkd.kb.journal import Entry, read_journal
from reaugkd.kb.signature import PrivateKey, new_key_pair, read_private_key, read_public_key

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
    Change(relabel=(Relabelling(2, Labelling("a", {"a": 1.0}), Labelling("b", None, True)),), odds=2.5),
)


def read(data: bytes, dtype: str = "i8", ndim: int = NDIM) -> list[Entry]:
    return list(read_journal(data, PATH, dtype, ndim, 0, START))


def test_what_is_written_is_read() -> None:
    entries = chain(*CHANGES)
    data = b"".join(entry.line() for entry in entries)
    assert data.isascii() and data.count(b"\n") == 3
    found = read(data)
    assert [entry.line() for entry in found] == [entry.line() for entry in entries]
    assert found[2] == entries[2] and found[0].change.add[1].payload.text == ("one", "two\ud800")  # type: ignore[union-attr]


def test_the_hash_is_that_of_the_canonical_line_without_payloads() -> None:
    """Computed here from the line's JSON alone, as another program would."""
    for entry in chain(*CHANGES):
        obj = json.loads(entry.line())
        assert obj.pop("after") == entry.after
        for added in obj["add"]:
            payload = json.dumps(added.pop("payload"), sort_keys=True, separators=(",", ":")).encode()
            assert added["digest"] == hashlib.sha256(payload).hexdigest()
        canonical = json.dumps(obj, sort_keys=True, separators=(",", ":")).encode()
        assert hashlib.sha256(canonical).hexdigest() == entry.after


@pytest.mark.parametrize("dtype", ["i8", "f16", "bf16", "f32"])
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


@given(st.data())
def test_an_altered_value_is_refused_though_its_hash_be_right(data: st.DataObject) -> None:
    """Whoever can write can seal as well: values are checked for what they are."""
    obj = json.loads(chain(CHANGES[0])[0].line())
    values = [None, True, -1, 1.5, 10**30, "x", "\ud800", [], {}, [[]], float("nan")]
    places = [(obj, name) for name in obj] + [(obj["add"][0], name) for name in obj["add"][0]]
    places += [(part, name) for part in (obj["add"][0]["payload"], obj["add"][0]["labelling"]) for name in part]
    inside, name = data.draw(st.sampled_from(places))
    inside[name] = data.draw(st.sampled_from(values))
    try:
        entry = Entry(**vars(read(canonical(obj) + b"\n")[0]))
    except BundleIntegrityError:
        return
    assert entry.digest() == entry.after


@pytest.mark.parametrize("key", ["AAAA", "AAAAAA==", "////", "", "x" * 10, "AQID\n"])
def test_keys_of_another_size_and_zeros_are_refused(key: str) -> None:
    obj = json.loads(chain(CHANGES[0])[0].line())
    added = obj["add"][0]
    added["payload"]["key"] = key
    added["digest"] = hashlib.sha256(
        json.dumps(added["payload"], sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()
    with pytest.raises(BundleIntegrityError):
        read(canonical(obj) + b"\n")


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
        with pytest.raises(BundleIntegrityError, match="not the one that was signed"):
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
