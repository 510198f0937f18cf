"""The little of SVG that the report's charts need: scales, axes, lines.

Everything is drawn in classes that the page's style sheet colours, so charts follow its theme. All
text and attribute values are escaped here.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

WIDTH, HEIGHT = 480, 318
LEFT, RIGHT, TOP, BOTTOM = 54, 464, 34, 264  # of the plotted area


@dataclass(frozen=True)
class Chart:
    """Hold one figure: drawing, words and the numbers behind it (``rows`` under ``header``)."""

    title: str
    svg: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: Sequence[tuple[str, str]] = ()  # (drawing of the mark, label)


@dataclass(frozen=True)
class Scale:
    """Map values from ``low`` to ``high`` onto coordinates from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: float | np.ndarray) -> np.ndarray:
        """Return coordinates; values outside are put on the nearer end."""
        inside = np.clip(np.asarray(values, dtype=np.float64), self.low, self.high)
        low, high = self.low, self.high
        if self.log:
            inside, low, high = np.log(inside), math.log(low), math.log(high)
        return np.asarray(self.start + (inside - low) / (high - low) * (self.end - self.start))

    def ticks(self, most: int = 6) -> list[float]:
        """Return round values within the scale: powers of ten, or multiples of 1, 2, 2.5 or 5."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), 1 + round(math.log10(self.high)))
            return [10.0**power for power in powers]
        step = nice_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def nice_step(least: float) -> float:
    """Return the smallest of 1, 2, 2.5 and 5 times a power of ten that is not below ``least``."""
    magnitude = 10.0 ** math.floor(math.log10(least))
    return next(f * magnitude for f in (1, 2, 2.5, 5, 10) if f * magnitude >= least * (1 - 1e-9))


def percent_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a scale with round ends around ``values``, within 0 to 100."""
    known = list(values)
    low, high = min(known), max(known)
    step = nice_step(max(high - low, 0.1) / 4)
    low = max(0.0, math.floor(low / step - 0.1) * step)
    return Scale(low, max(min(100.0, math.ceil(high / step + 0.1) * step), low + step), start, end)


def element(name: str, attributes: Mapping[str, str | float], content: str = "") -> str:
    """Return an SVG element; ``content`` is markup already."""
    listed = "".join(f' {key}="{_attribute(value)}"' for key, value in attributes.items())
    return f"<{name}{listed}>{content}</{name}>"


def text(x: float, y: float, words: str, *, anchor: str = "start", style: str = "") -> str:
    """Return words at a point."""
    attributes: dict[str, str | float] = {"x": x, "y": y, "text-anchor": anchor}
    if style:
        attributes["class"] = style
    return element("text", attributes, html.escape(words))


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """Return a straight line."""
    return element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": style})


def box(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """Return a rectangle between two corners."""
    left, top = min(x1, x2), min(y1, y2)
    size = {"width": abs(x2 - x1), "height": abs(y2 - y1)}
    return element("rect", {"x": left, "y": top, **size, "class": style})


def polyline(x: np.ndarray, y: np.ndarray, style: str) -> str:
    """Return a line through points."""
    return element("polyline", {"points": _points(zip(x, y, strict=True)), "class": style})


def area(x: np.ndarray, low: np.ndarray, high: np.ndarray, style: str) -> str:
    """Return what lies between two lines."""
    xs, ys = np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]])
    return element("polygon", {"points": _points(zip(xs, ys, strict=True)), "class": style})


def marker(x: float, y: float, shape: int, style: str, title: str = "") -> str:
    """Return a mark whose form says the series also without colour; ``title`` shows on hover."""
    r = 4.0
    outlines = [
        [(-r, -r), (r, -r), (r, r), (-r, r)],
        [(0, -1.2 * r), (1.2 * r, r), (-1.2 * r, r)],
        [(0, -1.3 * r), (1.3 * r, 0), (0, 1.3 * r), (-1.3 * r, 0)],
    ]
    content = element("title", {}, html.escape(title)) if title else ""
    if shape == 0:
        return element("circle", {"cx": x, "cy": y, "r": r, "class": style}, content)
    points = _points((x + dx, y + dy) for dx, dy in outlines[(shape - 1) % len(outlines)])
    return element("polygon", {"points": points, "class": style}, content)


@dataclass
class Drawing:
    """Collect the parts of a chart over its axes; ``strip``: room left free below the x axis."""

    x: Scale
    y: Scale
    strip: float = 0
    parts: list[str] = field(default_factory=list)

    def add(self, *parts: str) -> None:
        self.parts.extend(parts)

    def axes(
        self,
        *,
        x_label: str,
        y_label: str,
        x_ticks: Sequence[tuple[float, str]],
        y_ticks: Sequence[tuple[float, str]],
    ) -> None:
        """Draw a grid, the ticks' words, and the axes' names: y's above, where it reads level."""
        for value, words in y_ticks:
            at = float(self.y(value))
            self.add(line(LEFT, at, RIGHT, at, "grid"), text(LEFT - 8, at + 4, words, anchor="end"))
        for value, words in x_ticks:
            at = float(self.x(value))
            self.add(line(at, BOTTOM, at, BOTTOM + 5, "axis"))
            self.add(text(at, BOTTOM + 20 + self.strip, words, anchor="middle"))
        self.add(line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"))
        self.add(text(4, 14, y_label, style="label"))
        self.add(text(RIGHT, BOTTOM + 43 + self.strip, x_label, anchor="end", style="label"))

    def svg(self, label: str) -> str:
        """Return the drawing as an ``svg`` element that assistive software reads as ``label``."""
        return element(
            "svg",
            {"viewBox": f"0 0 {WIDTH} {HEIGHT + self.strip:g}", "role": "img", "aria-label": label},
            "".join(self.parts),
        )


def line_sample(style: str, shape: int | None = None) -> str:
    """Return a short piece of a line, with its mark if it has one, for a legend."""
    mark = "model mark" if shape == 0 else "other mark"
    parts = line(0, 7, 28, 7, style) + ("" if shape is None else marker(14, 7, shape, mark))
    return element("svg", {"viewBox": "0 0 28 14", "class": "sample", "aria-hidden": "true"}, parts)


def steps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a curve that keeps each value until the next x."""
    return np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]


def _points(corners: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in corners)


def _attribute(value: str | float) -> str:
    return html.escape(value) if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
