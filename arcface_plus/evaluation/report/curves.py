"""The report's ROC and DET charts: both show TAR at every FAR, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from arcface_plus.evaluation.pairs.dependence import PAIRS, PHOTOGRAPHS
from arcface_plus.evaluation.pairs.intervals import Intervals
from arcface_plus.evaluation.pairs.roc import COARSE_BELOW
from arcface_plus.evaluation.report.section import ReportSection
from arcface_plus.evaluation.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Chart,
    Drawing,
    Scale,
    line_sample,
    percent_scale,
    steps,
    text,
)
from arcface_plus.evaluation.report.words import percent, rate_words, span, whole

MODEL = "this model"


def roc_chart(section: ReportSection) -> Chart:
    """Draw TAR over FAR."""
    result, intervals = section.result, section.intervals
    shown = [result.tar_at_far, *(each.tar_at_far for each in section.curved.values())]
    points = [tar for tars in shown for tar in tars.values()]
    y = percent_scale([100 * min(intervals.tar.min(), intervals.rates.min(), *points), 100.0])
    draw = _curves(section, y, "true accept rate, TAR (%)", "{:g}".format, lambda tar: 100 * tar)
    for far, tar in result.tar_at_far.items():
        draw.mark(far, 100 * tar, 0, "model mark")
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
                span(intervals.tar[intervals.fars == far][0]),
                f"{result.tar_thresholds[far]:.3f}",
            )
            for far, tar in result.tar_at_far.items()
        ],
        legend=_legend(section),
    )


def det_chart(section: ReportSection) -> Chart:
    """Draw both error rates on log axes, which show how good models differ."""
    result, intervals = section.result, section.intervals
    floor = min(0.1, 1 / result.genuine_pairs)
    y = Scale(floor, 1, BOTTOM, TOP, log=True)
    draw = _curves(
        section, y, "false reject rate, FRR (log scale)", rate_words, lambda tar: 1 - tar
    )
    equal = (max(floor, draw.x.low), 1.0)
    draw.line(equal, equal, "equal")
    if result.eer > equal[0]:
        words = f"EER {percent(result.eer)} %"
        draw.mark(result.eer, result.eer, 0, "model mark", words)
        x, height = float(draw.x(result.eer)), float(draw.y(result.eer))
        draw.parts.append(text(x + 9, height - 6, words))
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
            (
                rate_words(far),
                percent(1 - tar),
                span(1 - intervals.tar[intervals.fars == far][0, ::-1]),
            )
            for far, tar in result.tar_at_far.items()
        ],
        legend=_legend(section),
    )


def basis_words(intervals: Intervals) -> str:
    """Say what was left out in turn."""
    units = whole(intervals.units)
    if intervals.basis == PAIRS:
        return f"jackknife over {units} pairs"
    by = ", known by their photographs" if intervals.basis == PHOTOGRAPHS else ""
    return f"jackknife over {units} people{by}"


def _curves(
    section: ReportSection,
    y: Scale,
    y_label: str,
    y_words: Callable[[float], str],
    of_tar: Callable[[np.ndarray], np.ndarray],
) -> Drawing:
    """Draw ``of_tar`` over FAR: the model's curve and band, and the points of the baselines."""
    fars, band = section.intervals.fars, of_tar(section.intervals.tar)
    draw = Drawing(Scale(min(0.1, float(fars[0])), 1, LEFT, RIGHT, log=True), y)
    coarse = COARSE_BELOW / section.result.impostor_pairs
    draw.box((draw.x.low, min(coarse, 1.0)), (y.low, y.high), "coarse")
    draw.axes(
        x_label="false accept rate, FAR (log scale)",
        y_label=y_label,
        x_ticks=[(far, rate_words(far)) for far in draw.x.ticks()],
        y_ticks=[(value, y_words(value)) for value in y.ticks()],
    )
    across, low = steps(fars, band[:, 0])
    draw.area(across, low, steps(fars, band[:, 1])[1], "model band")
    draw.line(*steps(fars, of_tar(section.intervals.rates)), "model stroke")
    for shape, other in enumerate(section.curved.values(), 1):
        at = np.array(sorted(other.tar_at_far))
        values = of_tar(np.array([other.tar_at_far[far] for far in at.tolist()]))
        draw.line(at, values, f"other dash-{shape % 3}")
        for far, value in zip(at, values, strict=True):
            draw.mark(far, value, shape, "other mark")
    return draw


def _legend(section: ReportSection) -> list[tuple[str, str]]:
    if not section.curved:
        return []
    others = [
        (line_sample(f"other dash-{shape % 3}", shape), name)
        for shape, name in enumerate(section.curved, 1)
    ]
    return [(line_sample("model stroke", 0), MODEL), *others]
