"""Plots as small SVG files: text as text, two decimals, no metadata."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_FAMILY = re.compile(r"font-family: '[^;\"]*sans-serif")
_UPRIGHT = re.compile(r' transform="rotate\(-0 [^)"]*\)"')
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_INDENT = re.compile(r"\n +")
_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def pyplot() -> Any:
    """Return matplotlib's pyplot, set for SVG files that are the same for the same figures."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "reaugkd"}
    from matplotlib import pyplot as found

    return found


def save(figure: Any, path: Path) -> None:
    """Save a figure of `pyplot`."""
    figure.savefig(path, format="svg", metadata=_METADATA)
    path.write_text(_small(path.read_text(encoding="utf-8")), encoding="utf-8")


def _small(svg: str) -> str:
    svg = _UPRIGHT.sub("", _FAMILY.sub("font-family: sans-serif", svg))
    return _INDENT.sub("\n", _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), svg))
