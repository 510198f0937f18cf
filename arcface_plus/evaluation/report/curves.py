"""The report's ROC and DET charts: both show TAR at every FAR, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from arcface_plus.evaluation.pairs.dependence import PAIRS, PHOTOGRAPHS
from arcface_plus.evaluation.pairs.intervals import Intervals
from arcface_plus.evaluation.pairs.roc import COARSE_BELOW, tar_at_far
from arcface_plus.evaluation.pairs.verification import VerificationResult
from arcface_plus.evaluation.report import svg as svg
from arcface_plus.evaluation.report.svg import BOTTOM, LEFT, RIGHT, TOP, Chart, Drawing, Scale
from arcface_plus.evaluation.report.words import percent, rate_words, span, whole

_POINTS = 160
MODEL = "this model"


@dataclass(frozen=True)
class Curve:
    """Hold a model's curve: TAR at ``intervals.fars``, and what is drawn beside it."""

    tar: np.ndarray
    intervals: Intervals
    result: VerificationResult
    baselines: Mapping[str, VerificationResult]

    def at(self, target: float) -> int:
        """Return the place of a FAR target, which ``curve_fars`` holds."""
        return int(np.flatnonzero(self.intervals.fars == target)[0])


def curve_fars(result: VerificationResult) -> np.ndarray:
    """Return the FARs to draw at: k of the impostor pairs, even on a log axis, and the targets."""
    counts = np.round(np.geomspace(1, result.impostor_pairs, _POINTS)).astype(np.int64)
    return np.union1d(counts / result.impostor_pairs, list(result.tar_at_far))


def curve_tars(distances: np.ndarray, is_same: np.ndarray, fars: np.ndarray) -> np.ndarray:
    """Return TAR at each of ``fars``, none of which the pairs refuse."""
    found = tar_at_far(distances[is_same], distances[~is_same], fars.tolist())
    return np.array([found.tar_at_far[far] for far in fars.tolist()])


def roc_chart(curve: Curve) -> Chart:
    """Draw TAR over FAR."""
    result, intervals = curve.result, curve.intervals
    shown = [other.tar_at_far for other in curve.baselines.values()]
    lowest = min(
        curve.tar.min(), intervals.tar.min(), *(t for tars in shown for t in tars.values())
    )
    draw = Drawing(
        _far_scale(intervals.fars),
        svg.percent_scale([100 * lowest, 100.0], BOTTOM, TOP),
    )
    y_ticks = [(value, f"{value:g}") for value in draw.y.ticks()]
    _axes(draw, result, "true accept rate, TAR (%)", y_ticks)
    _band(draw, intervals.fars, 100 * curve.tar, 100 * intervals.tar)
    for shape, tars in enumerate(shown, 1):
        _points(draw, shape, {far: 100 * tar for far, tar in tars.items()})
    _points(draw, 0, {far: 100 * tar for far, tar in result.tar_at_far.items()})
    words = ", ".join(
        f"{percent(tar)} % at FAR {rate_words(far)}" for far, tar in result.tar_at_far.items()
    )
    return Chart(
        title="True accepts against false accepts (ROC)",
        svg=draw.svg(f"ROC curve with 95 % intervals. TAR: {words or 'no FAR can be shown'}."),
        caption=(
            "Each threshold is a point of the curve: the share of genuine pairs it accepts, over "
            "the share of impostor pairs it lets through. Up and left is better. The band is the "
            f"95 % interval of TAR at each FAR ({basis_words(intervals)}). In the shaded part "
            f"fewer than {COARSE_BELOW} false accepts decide."
        ),
        header=("FAR", "TAR (%)", "95 % interval", "Threshold"),
        rows=[
            (
                rate_words(far),
                percent(tar),
                span(intervals.tar[curve.at(far)]),
                f"{result.tar_thresholds[far]:.3f}",
            )
            for far, tar in result.tar_at_far.items()
        ],
        legend=_legend(curve),
    )


def det_chart(curve: Curve) -> Chart:
    """Draw both error rates on log axes, which show how good models differ."""
    result, intervals = curve.result, curve.intervals
    floor = min(0.1, 1 / result.genuine_pairs)
    draw = Drawing(_far_scale(intervals.fars), Scale(floor, 1, BOTTOM, TOP, log=True))
    y_ticks = [(frr, rate_words(frr)) for frr in draw.y.ticks()]
    _axes(draw, result, "false reject rate, FRR (log scale)", y_ticks)
    equal = np.array([max(floor, draw.x.low), 1.0])
    draw.add(svg.polyline(draw.x(equal), draw.y(equal), "equal"))
    misses = 1 - intervals.tar[:, ::-1]
    _band(draw, intervals.fars, 1 - curve.tar, misses)
    for shape, other in enumerate(curve.baselines.values(), 1):
        _points(draw, shape, {far: 1 - tar for far, tar in other.tar_at_far.items()})
    if result.eer > equal[0]:
        x, y = float(draw.x(result.eer)), float(draw.y(result.eer))
        words = f"EER {percent(result.eer)} %"
        draw.add(svg.marker(x, y, 0, "model mark", words), svg.text(x + 9, y - 6, words))
    return Chart(
        title="False rejects against false accepts (DET)",
        svg=draw.svg(f"DET curve with 95 % intervals. Equal error rate {percent(result.eer)} %."),
        caption=(
            "The same curve and band as errors: genuine pairs rejected, over impostor pairs "
            "accepted. Down and left is better; on the dotted line both errors are equal (EER). "
            f"The lower edge is one genuine pair of {whole(result.genuine_pairs)}: a curve that "
            "runs along it rejects one or none."
        ),
        header=("FAR", "FRR (%)", "95 % interval"),
        rows=[
            (rate_words(far), percent(1 - tar), span(misses[curve.at(far)]))
            for far, tar in result.tar_at_far.items()
        ],
        legend=_legend(curve),
    )


def basis_words(intervals: Intervals) -> str:
    """Say what was left out in turn."""
    units = whole(intervals.units)
    if intervals.basis == PAIRS:
        return f"jackknife over {units} pairs"
    by = ", known by their photographs" if intervals.basis == PHOTOGRAPHS else ""
    return f"jackknife over {units} people{by}"


def _far_scale(fars: np.ndarray) -> Scale:
    return Scale(min(0.1, float(fars[0])), 1, LEFT, RIGHT, log=True)


def _axes(
    draw: Drawing, result: VerificationResult, y_label: str, y_ticks: list[tuple[float, str]]
) -> None:
    coarse = COARSE_BELOW / result.impostor_pairs
    draw.add(svg.box(LEFT, TOP, float(draw.x(min(coarse, 1.0))), BOTTOM, "coarse"))
    draw.axes(
        x_label="false accept rate, FAR (log scale)",
        y_label=y_label,
        x_ticks=[(far, rate_words(far)) for far in draw.x.ticks()],
        y_ticks=y_ticks,
    )


def _band(draw: Drawing, fars: np.ndarray, values: np.ndarray, ends: np.ndarray) -> None:
    x = draw.x(fars)
    across, low = svg.steps(x, draw.y(ends[:, 0]))
    _, high = svg.steps(x, draw.y(ends[:, 1]))
    draw.add(svg.area(across, low, high, "model band"))
    draw.add(svg.polyline(*svg.steps(x, draw.y(values)), "model stroke"))


def _points(draw: Drawing, shape: int, values: Mapping[float, float]) -> None:
    if shape:
        fars = np.array(sorted(values))
        heights = np.array([values[far] for far in fars])
        draw.add(svg.polyline(draw.x(fars), draw.y(heights), f"other dash-{shape % 3}"))
    for far, value in values.items():
        x, y = float(draw.x(far)), float(draw.y(value))
        draw.add(svg.marker(x, y, shape, "model mark" if shape == 0 else "other mark"))


def _legend(curve: Curve) -> list[tuple[str, str]]:
    if not curve.baselines:
        return []
    others = [
        (svg.line_sample(f"other dash-{shape % 3}", shape), name)
        for shape, name in enumerate(curve.baselines, 1)
    ]
    return [(svg.line_sample("model stroke", 0), MODEL), *others]
