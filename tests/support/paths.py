"""Folders of the tests."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
SHARED = ROOT.parent / "shared"
KEPT_BUNDLES = TESTS / "data" / "bundles"
