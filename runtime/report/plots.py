"""The plots of a report, as SVG. Colours come from the page's style, so that plots follow dark mode and print."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .markup import Markup, tag

_WIDTH, _HEIGHT = 460.0, 344.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 24.0, 28.0, 46.0
_COLOURS = 4  # classes c0 to c3 of the style

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One axis of a plot of shares.

    Attributes:
        title: its title.
        least: the smallest value.
        most: the largest value.
    """

    title: str
    least: float
    most: float

    def place(self, value: float) -> float:
        """The value's place on the axis, 0 to 1."""
        return (min(max(value, self.least), self.most) - self.least) / (self.most - self.least)

    def ticks(self) -> list[float]:
        """Five steps with their values."""
        return [self.least + (self.most - self.least) * step / 5 for step in range(6)]


def axis_to(title: str, values: Sequence[float]) -> Axis:
    """An axis from 0 to a round number that no value exceeds, at most 1."""
    most = max(values, default=0.0)
    return Axis(title, 0.0, next((top for top in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if most <= top), 1.0))


def plot(
    title: str,
    x: Axis,
    y: Axis,
    lines: Mapping[str, Sequence[Point]],
    marks: Sequence[Point] = (),
    diagonal: bool = False,
    dots: bool = False,
) -> Markup:
    """Lines over shares, with a legend above; there is room for two.

    Args:
        title: what the plot shows, for screen readers.
        x: the horizontal axis.
        y: the vertical axis.
        lines: name -> points.
        marks: points drawn as rings.
        diagonal: draw the line of equal values.
        dots: draw the points of the lines.
    """
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(point: Point) -> Point:
        return round(_LEFT + width * x.place(point[0]), 1), round(_TOP + height * (1 - y.place(point[1])), 1)

    parts = [*_grid(x, y, at)]
    if diagonal:
        parts.append(_line(at((x.least, x.least)), at((x.most, x.most)), "even"))
    for number, (name, points) in enumerate(lines.items()):
        colour = f"c{number % _COLOURS}"
        path = " ".join(f"{px:g},{py:g}" for px, py in map(at, points))
        parts.append(tag("polyline", points=path, class_=f"line {colour}"))
        parts += [tag("circle", cx=px, cy=py, r=3.5, class_=f"dot {colour}") for px, py in map(at, points) if dots]
        left = _LEFT + 190 * number
        parts.append(_line((left, 12), (left + 22, 12), f"line {colour}"))
        parts.append(tag("text", name, x=left + 28, y=16))
    parts += [tag("circle", cx=px, cy=py, r=5.0, class_="mark") for px, py in map(at, marks)]
    return _svg(title, _HEIGHT, parts)


def stacked_bars(title: str, unit: str, bars: Mapping[str, Mapping[str, float]]) -> Markup:
    """One horizontal bar for each name, of parts laid end to end, with a legend below.

    Args:
        title: what the plot shows, for screen readers.
        unit: the unit of the numbers.
        bars: name -> part -> value.
    """
    names = list(dict.fromkeys(part for parts in bars.values() for part in parts))
    most = max(sum(parts.values()) for parts in bars.values()) or 1.0
    left, room = 130.0, _WIDTH - 130.0 - 70.0
    drawn: list[Markup] = []
    for row, (name, parts) in enumerate(bars.items()):
        top, begin = 8.0 + 34 * row, left
        drawn.append(tag("text", name, x=left - 8, y=top + 16, class_="end"))
        for part, value in parts.items():
            long = room * value / most
            label = tag("title", f"{name}, {part}: {value:.0f} {unit}")
            colour = f"area c{names.index(part) % _COLOURS}"
            drawn.append(tag("rect", label, x=round(begin, 1), y=top, width=round(long, 1), height=22.0, class_=colour))
            begin += long
        drawn.append(tag("text", f"{sum(parts.values()):.0f} {unit}", x=round(begin, 1) + 6, y=top + 16))
    below = 8.0 + 34 * len(bars)
    for number, name in enumerate(names):
        x = left + 80 * number
        drawn.append(tag("rect", x=x, y=below + 6, width=10.0, height=10.0, class_=f"area c{number % _COLOURS}"))
        drawn.append(tag("text", name, x=x + 15, y=below + 15))
    return _svg(title, below + 24, drawn)


def intervals(title: str, lines: Mapping[str, Mapping[str, tuple[float, float, float]]], zero: bool = False) -> Markup:
    """Values with intervals, one row for each name, with a legend above; there is room for two lines.

    Args:
        title: what the plot shows, for screen readers.
        lines: line -> name -> value and the ends of its interval, as shares; drawn in points.
        zero: draw the line of zero.
    """
    names = list(dict.fromkeys(name for line in lines.values() for name in line))
    ends = [100 * end for line in lines.values() for triple in line.values() for end in triple] + [0.0] * zero
    step = next(one for one in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if one == 20 or max(ends) - min(ends) <= 5 * one)
    least, most = math.floor(min(ends) / step) * step, math.ceil(max(ends) / step + 1e-9) * step
    left, top, gap = 150.0, _TOP, 14.0 + 12.0 * len(lines)
    bottom = top + gap * len(names)

    def x_of(value: float) -> float:
        return round(left + (_WIDTH - left - _RIGHT) * (value - least) / (most - least), 1)

    parts: list[Markup] = []
    for number in range(round((most - least) / step) + 1):
        value = least + step * number
        parts.append(_line((x_of(value), top), (x_of(value), bottom), "grid"))
        parts.append(tag("text", f"{value:.{1 if step < 1 else 0}f}", x=x_of(value), y=bottom + 16, class_="middle"))
    parts.append(tag("text", "points", x=(left + _WIDTH - _RIGHT) / 2, y=bottom + 32, class_="middle"))
    if zero:
        parts.append(_line((x_of(0), top), (x_of(0), bottom), "even"))
    for row, name in enumerate(names):
        shown = name if len(name) <= 22 else f"{name[:21]}…"
        parts.append(tag("text", shown, tag("title", name), x=left - 8, y=top + gap * (row + 0.5) + 4, class_="end"))
    for number, (line, values) in enumerate(lines.items()):
        colour = f"c{number % _COLOURS}"
        if len(lines) > 1:
            parts.append(tag("circle", cx=left + 160 * number, cy=12.0, r=3.5, class_=f"dot {colour}"))
            parts.append(tag("text", line, x=left + 8 + 160 * number, y=16))
        for name, triple in values.items():
            y = top + gap * names.index(name) + gap * (number + 1) / (len(lines) + 1)
            value, low, high = (x_of(100 * end) for end in triple)
            said = tag("title", f"{name}, {line}: " + ", ".join(f"{100 * end:.2f}" for end in triple))
            parts.append(_line((low, y), (high, y), f"line dot {colour}"))
            parts.append(tag("circle", said, cx=value, cy=y, r=3.5, class_=f"dot {colour}"))
    return _svg(title, bottom + 40, parts)


def _grid(x: Axis, y: Axis, at: object) -> list[Markup]:
    assert callable(at)
    parts = []
    for value in x.ticks():
        px, bottom = at((value, y.least))
        parts.append(_line((px, _TOP), (px, bottom), "grid"))
        parts.append(tag("text", _percent(value, x), x=px, y=bottom + 16, class_="middle"))
    for value in y.ticks():
        left, py = at((x.least, value))
        parts.append(_line((left, py), (_WIDTH - _RIGHT, py), "grid"))
        parts.append(tag("text", _percent(value, y), x=left - 6, y=py + 4, class_="end"))
    middle = _TOP + (_HEIGHT - _TOP - _BOTTOM) / 2
    parts.append(tag("text", x.title, x=_LEFT + (_WIDTH - _LEFT - _RIGHT) / 2, y=_HEIGHT - 8, class_="middle"))
    turned = f"rotate(-90 14 {middle:g})"
    parts.append(tag("text", y.title, x=14.0, y=middle, transform=turned, class_="middle"))
    return parts


def _percent(value: float, axis: Axis) -> str:
    digits = 0 if axis.most - axis.least > 0.1 else 1
    return f"{100 * value:.{digits}f} %"


def _line(begin: Point, end: Point, name: str) -> Markup:
    return tag("line", x1=begin[0], y1=begin[1], x2=end[0], y2=end[1], class_=name)


def _svg(title: str, height: float, parts: Sequence[Markup]) -> Markup:
    return tag("svg", *parts, viewBox=f"0 0 {_WIDTH:g} {height:g}", role="img", aria_label=title)
