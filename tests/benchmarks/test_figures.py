"""benchmarks/figures.py: plots stay readable when they are made small."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")

from reaugkd.benchmarks.figures import pyplot, save


def test_a_small_plot_has_its_text_and_its_points_and_is_the_same_again(tmp_path: Path) -> None:
    contents = []
    for name in ("first.svg", "second.svg"):
        figure, axes = pyplot().subplots()
        axes.plot([1.0, 2.0, 3.0], [0.123456, 0.2, 0.987654], label="the student alone")
        axes.set_ylabel("accuracy, per cent")
        axes.legend()
        save(figure, tmp_path / name)
        figure.savefig(tmp_path / "large.svg")
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] and len(contents[0]) < 0.6 * (tmp_path / "large.svg").stat().st_size
    small, large = (list(ElementTree.parse(tmp_path / name).iter()) for name in ("first.svg", "large.svg"))
    texts = [one.text for one in small if one.tag.endswith("}text")]
    assert {"the student alone", "accuracy, per cent"} <= {*texts}
    paths = [[one.get("d", "") for one in found if one.tag.endswith("}path")] for found in (small, large)]
    points = [[float(part) for path in found for part in path.split() if part not in "MLCQz"] for found in paths]
    assert points[0] == pytest.approx(points[1], abs=0.0051)
