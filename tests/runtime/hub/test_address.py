"""Addresses on the Hub, compared with huggingface_hub's own rules."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from reaugkd import UsageError
from reaugkd.runtime.hub.address import HubAddress, is_repository

NAMES = st.text("aZ9-_./ @é", max_size=12)


def valid(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.isascii() and "/" in name  # ids without an owner are only a few old ones


@given(NAMES)
def test_a_name_is_valid_where_the_library_takes_it(name: str) -> None:
    assert is_repository(name) == valid(name)


@given(st.sampled_from(["me/clf", "a_b/c.d-e"]), st.none() | st.from_regex(r"[\w.+/-]{1,80}", fullmatch=True))
def test_an_address_is_read_as_it_is_written(repository: str, revision: str | None) -> None:
    try:
        address = HubAddress(repository, revision)
    except UsageError:
        assert revision is not None and not revision.isascii()
        return
    assert HubAddress.parse(str(address)) == HubAddress.parse(address.name) == address
    assert HubAddress.parse(repository, revision) == address


def test_a_commit_has_40_digits() -> None:
    assert HubAddress("me/clf", "0a" * 20).commit == "0a" * 20
    assert HubAddress("me/clf", "0a" * 19).commit is HubAddress("me/clf").commit is None
    with pytest.raises(UsageError, match="not a revision"):
        HubAddress.parse("me/clf@")
