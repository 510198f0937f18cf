"""The little of SVG that the report's charts need: scales, axes, lines.

Everything is drawn in classes that the page's style sheet colours, so charts follow its theme.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

WIDTH, HEIGHT = 480, 318
LEFT, RIGHT, TOP, BOTTOM = 54, 464, 34, 264  # of the plotted area
# Corners of marks, (2, corners) around their middle.
_OUTLINES = (
    4.0 * np.array([(-1, 1, 1, -1), (-1, -1, 1, 1)]),
    4.0 * np.array([(0, 1.2, -1.2), (-1.2, 1, 1)]),
    4.0 * np.array([(0, 1.3, 0, -1.3), (-1.3, 0, 1.3, 0)]),
)


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

    def __call__(self, values: ArrayLike) -> np.ndarray:
        """Return coordinates; values outside are put on the nearer end."""
        inside, ends = np.clip(values, self.low, self.high), np.array([self.low, self.high])
        if self.log:
            inside, ends = np.log(inside), np.log(ends)
        return np.asarray(np.interp(inside, ends, [self.start, self.end]))

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


def percent_scale(values: Sequence[float]) -> Scale:
    """Return a y scale with round ends around ``values``, within 0 to 100."""
    low, high = min(values), max(values)
    step = nice_step(max(high - low, 0.1) / 4)
    low = max(0.0, math.floor(low / step - 0.1) * step)
    high = max(min(100.0, math.ceil(high / step + 0.1) * step), low + step)
    return Scale(low, high, BOTTOM, TOP)


def text(x: float, y: float, words: str, style: str = "", *, anchor: str = "start") -> str:
    """Return words at a point."""
    place = f'x="{x:.4g}" y="{y:.4g}" text-anchor="{anchor}"'
    return f'<text {place} class="{style}">{html.escape(words)}</text>'


def polyline(x: ArrayLike, y: ArrayLike, style: str) -> str:
    """Return a line through points."""
    return f'<polyline points="{_points(x, y)}" class="{style}"></polyline>'


def marker(x: float, y: float, shape: int, style: str, title: str = "") -> str:
    """Return a mark whose form says the series also without colour; ``title`` shows on hover."""
    note = f"<title>{html.escape(title)}</title>" if title else ""
    if shape == 0:
        return f'<circle cx="{x:.4g}" cy="{y:.4g}" r="4" class="{style}">{note}</circle>'
    across, down = _OUTLINES[(shape - 1) % len(_OUTLINES)]
    return f'<polygon points="{_points(x + across, y + down)}" class="{style}">{note}</polygon>'


def line_sample(style: str, shape: int | None = None) -> str:
    """Return a short piece of a line, with its mark if it has one, for a legend."""
    mark = "model mark" if shape == 0 else "other mark"
    parts = polyline((0, 28), (7, 7), style)
    parts += "" if shape is None else marker(14, 7, shape, mark)
    return f'<svg viewBox="0 0 28 14" class="sample" aria-hidden="true">{parts}</svg>'


def steps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a curve that keeps each value until the next x."""
    return np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]


def _points(x: ArrayLike, y: ArrayLike) -> str:
    return " ".join(f"{a:.4g},{b:.4g}" for a, b in np.column_stack([x, y]).tolist())


@dataclass
class Drawing:
    """Collect the parts of a chart over its axes; ``strip``: room left free below the x axis.

    What is drawn by a method is placed by the values of the axes; ``parts`` takes anything else.
    """

    x: Scale
    y: Scale
    strip: float = 0
    parts: list[str] = field(default_factory=list)

    def line(self, x: ArrayLike, y: ArrayLike, style: str) -> None:
        """Draw a line through points."""
        self.parts.append(polyline(self.x(x), self.y(y), style))

    def area(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, style: str) -> None:
        """Draw what lies between two lines."""
        across, down = np.append(x, x[::-1]), np.append(low, high[::-1])
        points = _points(self.x(across), self.y(down))
        self.parts.append(f'<polygon points="{points}" class="{style}"></polygon>')

    def box(self, x: tuple[float, float], y: tuple[float, float], style: str) -> None:
        """Draw a rectangle between two values of either axis."""
        self.area(np.array(x), np.full(2, y[0]), np.full(2, y[1]), style)

    def mark(self, x: float, y: float, shape: int, style: str, title: str = "") -> None:
        """Draw a ``marker`` at a point."""
        self.parts.append(marker(float(self.x(x)), float(self.y(y)), shape, style, title))

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
            self.parts.append(polyline((LEFT, RIGHT), (at, at), "grid"))
            self.parts.append(text(LEFT - 8, at + 4, words, anchor="end"))
        for value, words in x_ticks:
            at = float(self.x(value))
            self.parts.append(polyline((at, at), (BOTTOM, BOTTOM + 5), "axis"))
            self.parts.append(text(at, BOTTOM + 20 + self.strip, words, anchor="middle"))
        self.parts += [
            polyline((LEFT, RIGHT), (BOTTOM, BOTTOM), "axis"),
            text(4, 14, y_label, "label"),
            text(RIGHT, BOTTOM + 43 + self.strip, x_label, "label", anchor="end"),
        ]

    def svg(self, label: str) -> str:
        """Return the drawing as an ``svg`` element that assistive software reads as ``label``."""
        size, drawn = f"{WIDTH} {HEIGHT + self.strip:g}", "".join(self.parts)
        return (
            f'<svg viewBox="0 0 {size}" role="img" aria-label="{html.escape(label)}">{drawn}</svg>'
        )
