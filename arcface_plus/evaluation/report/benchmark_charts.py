"""The report's charts of error rates by group and of error versus discard."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from arcface_plus.evaluation.benchmark.discard import DiscardCurve
from arcface_plus.evaluation.benchmark.group_rates import GroupErrors, GroupRate, worst_over_best
from arcface_plus.evaluation.pairs.dependence import PEOPLE
from arcface_plus.evaluation.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Drawing,
    Scale,
    line_sample,
    marker,
    nice_step,
    polyline,
    steps,
    text,
)
from arcface_plus.evaluation.report.words import shortened, whole

_MOST_ROWS = 16
_ROW = 30
_MOST_POINTS = 400
_SURE = 0.05


def group_charts(found: GroupErrors) -> list[Chart]:
    """Draw FNMR of each group and FMR of each pair of groups, with 95 % intervals."""
    return [
        _rates_chart(
            found,
            found.fnmr,
            f"False non-matches by {found.column}",
            "Genuine pairs of each group that are rejected",
            (found.fnmr_p, found.adjusted[0]),
        ),
        _rates_chart(
            found,
            found.fmr,
            f"False matches by {found.column}",
            "Impostor pairs of each two groups that are accepted",
            (found.fmr_p, found.adjusted[1]),
        ),
    ]


def discard_chart(curves: Sequence[DiscardCurve]) -> Chart:
    """Draw FNMR over the share of genuine pairs discarded, a line a quality score."""
    first, legend = curves[0], []
    seen = [curve.discarded <= curve.limit for curve in curves]
    tops = [curve.fnmr[of].max() for curve, of in zip(curves, seen, strict=True)]
    draw = _discard_axes(first, 100 * max(tops))
    for number, (curve, of) in enumerate(zip(curves, seen, strict=True)):
        style = "model stroke" if number == 0 else f"other dash-{number % 3}"
        last = int(of.sum()) - 1
        kept = np.unique(np.linspace(0, last, min(last + 1, _MOST_POINTS)).astype(np.int64))
        x, y = np.append(curve.discarded[kept], curve.limit), curve.fnmr[kept]
        draw.line(*steps(100 * x, 100 * np.append(y, curve.fnmr[last])), style)
        legend.append((line_sample(style), shortened(curve.quality)))
    areas = "; ".join(f"{shortened(each.quality)} {each.area:.3g}" for each in curves)
    return Chart(
        title="Errors while pairs of low quality are discarded",
        svg=draw.svg(f"Error versus discard. Areas: {areas}."),
        caption=(
            f"{_where(first.threshold, first.threshold_of)} The steeper a curve falls, the better "
            "its quality score names the pairs that fail. Dotted: discarding at random (level), "
            f"and discarding all that fail first. The band is the 95 % interval of "
            f"{shortened(first.quality)}. Areas up to {100 * first.limit:g} %: {areas}; at random "
            f"{first.area_random:.3g}, ideal {first.area_ideal:.3g}."
        ),
        header=("Quality, discarded", "Pairs left", "FNMR (%)", "95 % interval"),
        rows=[
            (
                f"{shortened(curve.quality)}, {100 * point.discarded:.2f} %",
                whole(point.pairs),
                f"{100 * point.fnmr:.3f}",
                _ends(point.interval),
            )
            for curve in curves
            for point in curve.points
        ],
        legend=legend,
    )


def _discard_axes(first: DiscardCurve, top: float) -> Drawing:
    """Return axes, the first curve's band, and the lines of random and ideal discarding."""
    top = max(top, *(100 * point.interval[1] for point in first.points), 1e-6)
    draw = Drawing(Scale(0, 100 * first.limit, LEFT, RIGHT), Scale(0, 1.05 * top, BOTTOM, TOP))
    draw.axes(
        x_label="genuine pairs discarded, lowest quality first (%)",
        y_label="false non-matches among the rest, FNMR (%)",
        x_ticks=[(value, f"{value:g}") for value in draw.x.ticks(5)],
        y_ticks=[(value, f"{value:g}") for value in draw.y.ticks()],
    )
    ends = np.array([point.interval for point in first.points])
    at = np.array([point.fraction for point in first.points])
    draw.area(100 * at, 100 * ends[:, 0], 100 * ends[:, 1], "model band")
    ideal, start = np.linspace(0, first.limit, 101), float(first.fnmr[0])
    draw.line(100 * ideal, 100 * np.maximum(start - ideal, 0) / (1 - ideal), "equal")
    draw.line((0, 100 * first.limit), (100 * start, 100 * start), "equal")
    return draw


def _rates_chart(
    found: GroupErrors,
    rates: tuple[GroupRate, ...],
    title: str,
    what: str,
    ps: tuple[float, float],
) -> Chart:
    shown = sorted(rates, key=lambda each: -each.rate)[:_MOST_ROWS]
    ratio = worst_over_best(rates)
    cut = "" if len(shown) == len(rates) else f" The {len(shown)} largest of {len(rates)} rates."
    assumed = (
        ""
        if all(each.basis == PEOPLE for each in rates)
        else " Groups of few people: their pairs are taken for independent, so these intervals are "
        "too narrow."
    )
    over = "not defined: the best has no error" if ratio is None else f"{ratio:.2f}"
    return Chart(
        title=title,
        svg=_dots(shown, f"{title}, with 95 % intervals."),
        caption=(
            f"{what}. {_where(found.threshold, found.threshold_of)} Worst over best: {over}. Does "
            f"some group differ? p = {ps[0]:.3g}, after Holm's correction {ps[1]:.3g}. "
            f"Filled: differs from all at {_SURE:g}.{cut}{assumed}"
        ),
        header=("Group", "Errors", "Pairs", "Rate (%)", "95 % interval", "p, adjusted"),
        rows=[
            (
                _name(each),
                whole(each.errors),
                whole(each.pairs),
                f"{100 * each.rate:.3f}",
                _ends(each.interval),
                f"{each.p:.3g}",
            )
            for each in rates
        ],
    )


def _dots(rates: Sequence[GroupRate], label: str) -> str:
    """Draw a dot and its interval a row, the group's name above."""
    bottom = TOP + _ROW * len(rates)
    top = 100 * max(*(each.interval[1] for each in rates), 1e-6)
    step = nice_step(top / 5)
    x = Scale(0, step * np.ceil(top / step), 8, RIGHT)
    parts = []
    for value in x.ticks():
        at = float(x(value))
        parts.append(polyline((at, at), (TOP - 8, bottom), "grid"))
        parts.append(text(at, bottom + 18, f"{value:g}", anchor="middle"))
    parts.append(text(RIGHT, bottom + 40, "rate (%)", "label", anchor="end"))
    for row, each in enumerate(rates):
        y = float(TOP + _ROW * row + 18)
        low, at, high = (float(x(100 * v)) for v in (each.interval[0], each.rate, each.interval[1]))
        style = "model mark" if each.p <= _SURE else "other mark"
        words = f"{_name(each)}: {100 * each.rate:.3f} % ({each.errors} of {each.pairs})"
        parts.append(polyline((low, high), (y, y), "model stroke"))
        parts.append(marker(at, y, 0, style, words))
        parts.append(text(10, y - 8, words))
    size, drawn = f"{WIDTH} {bottom + 50:g}", "".join(parts)
    return f'<svg viewBox="0 0 {size}" role="img" aria-label="{html.escape(label)}">{drawn}</svg>'


def _name(rate: GroupRate) -> str:
    return " × ".join(shortened(group) for group in rate.groups)


def _where(threshold: float, threshold_of: str) -> str:
    how = "as given" if threshold_of == "given" else f"that of {threshold_of}"
    return f"Threshold: cosine {1 - threshold / 2:.4f}, {how}."


def _ends(interval: tuple[float, float]) -> str:
    return " – ".join(f"{100 * end:.3f}" for end in interval)
