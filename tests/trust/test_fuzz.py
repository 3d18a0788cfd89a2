"""Changed bytes raise only errors of the package.

The targets of tests/fuzz, shortly, and a manifest's values and types changed at many places at once.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import pytest
from fuzz import manifest as manifest_target
from fuzz.common import mutants
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import TESTS

from reaugkd.errors import ReaugkdError
from reaugkd.kb.storage.strict_json import parse_json
from reaugkd.runtime.bundle.manifest import Manifest

pytestmark = pytest.mark.slow

NO_TARGETS = {"__main__", "common", "texts"}  # texts are run by test_hostile_texts.py
TARGETS = sorted({file.stem for file in (TESTS / "fuzz").glob("*.py")} - NO_TARGETS)


def test_there_are_targets() -> None:
    assert {"manifest", "tables", "index"} <= set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_stands_changed_seeds(target: str) -> None:
    """In a new process, because usearch may crash it."""
    command = [sys.executable, "-m", "fuzz", target, "--count", "1500"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_same_mutants_every_time_and_the_seeds_first() -> None:
    seeds = [b"abc", b"0123456789"]
    first, second = (list(mutants(seeds, 50, seed=3)) for _ in range(2))
    assert first == second and first[:2] == seeds and len(first) == 52 and len(set(first)) > 40


# A manifest, its structure kept in mind.

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400]),
    st.sampled_from([0.0, -0.0, 1e-320, 1e-7, 0.5, 1e308, float("inf"), float("-inf"), float("nan")]),
    st.sampled_from(["", "a", "buckets", "logistic", "cos", "f16", "\ud800", "../x", "/x", "a\0b", "x" * 20_000]),
    st.sampled_from([[], {}, [[]], [{}], {"": {}}, [0] * 300, [None], {"kind": "buckets"}]),
    st.text(max_size=4),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path to every nested value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way for key, below in inner for way in ((*path, key), *places(below, (*path, key)))]


@st.composite
def changed_manifests(draw: st.DrawFn) -> Any:
    """Yield a valid manifest with values replaced, removed, renamed, doubled and moved."""
    obj = copy.deepcopy(json.loads(draw(st.sampled_from(manifest_target.seeds()))))
    for _ in range(draw(st.integers(1, 5))):
        ways = places(obj)
        if not ways:
            break
        way = draw(st.sampled_from(ways))
        place = obj
        for key in way[:-1]:
            place = place[key]
        key = way[-1]
        change = draw(st.sampled_from(["replace", "remove", "add", "move"]))
        if change == "replace":
            place[key] = copy.deepcopy(draw(ODD))
        elif change == "remove":
            del place[key]
        elif change == "add" and isinstance(place, list):
            place.extend([copy.deepcopy(draw(ODD))] * draw(st.sampled_from([1, 2, 200])))
        elif change == "add":
            place[draw(st.sampled_from(["", "x", "kind", "../y", "weight", "k"]))] = copy.deepcopy(draw(ODD))
        else:
            source: Any = obj
            for step in draw(st.sampled_from(ways)):
                source = source[step] if isinstance(source, dict) and step in source else source
            place[key] = copy.deepcopy(source)
    return obj


@settings(max_examples=400, deadline=None)
@given(changed_manifests())
def test_a_changed_manifest_is_one_or_an_error(obj: Any) -> None:
    try:
        manifest = Manifest.from_json(obj, manifest_target.FILE)
    except ReaugkdError as error:
        assert error.path == str(manifest_target.FILE) and len(str(error)) < 3000
        return
    assert Manifest.from_json(manifest.to_json(), manifest_target.FILE).to_json() == manifest.to_json()


@settings(max_examples=200, deadline=None)
@given(changed_manifests())
def test_json_is_read_as_it_stands_or_not_at_all(obj: Any) -> None:
    raw = json.dumps(obj).encode()
    try:
        assert parse_json(raw) == obj
    except ValueError:
        assert any(word in raw for word in (b"NaN", b"Infinity"))


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff", b"\xef\xbb\xbf{}", b'{"a": 1, "a": 1}', b"[NaN]", b"[-Infinity]", b"[1e400]", b"[" * 99_999],
)
def test_invalid_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(raw)
