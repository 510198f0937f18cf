"""The report's charts of distances, folds and training, as inline SVG.

Distances are squared L2 between unit vectors, 0 to 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from arcface_plus.evaluation.pairs.distribution import (
    BOUNDARY_SHARE,
    TAIL_SHARE,
    distance_distribution,
)
from arcface_plus.evaluation.pairs.verification import VerificationResult
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
    polyline,
    steps,
    text,
)
from arcface_plus.evaluation.report.words import whole

_QUANTILES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
_BINS = np.linspace(0, 4, 81)


def distance_chart(
    distances: np.ndarray, is_same: np.ndarray, right: np.ndarray, result: VerificationResult
) -> Chart:
    """Draw how far apart pairs are; ``right`` (N,) bool: which were decided rightly."""
    kinds = (("genuine", "same person", is_same), ("impostor", "different people", ~is_same))
    shares = [np.histogram(np.clip(distances[of], 0, 4), _BINS)[0] / of.sum() for _, _, of in kinds]
    top = max(float(share.max()) for share in shares)
    # The names stand above the peaks.
    draw = Drawing(Scale(0, 4, LEFT, RIGHT), Scale(0, 115 * top, BOTTOM, TOP), strip=22)
    draw.axes(
        x_label="squared L2 distance of a pair",
        y_label="share of the pairs per 0.05 of distance (%)",
        x_ticks=[(value, f"{value:g}") for value in draw.x.ticks(5)],
        y_ticks=[(value, f"{value:g}") for value in draw.y.ticks(5)],
    )
    for row, ((style, label, of), share) in enumerate(zip(kinds, shares, strict=True)):
        x, y = steps(_BINS, 100 * np.append(share, 0.0))
        draw.area(x, y, np.zeros(len(y)), f"{style} fill")
        draw.line(x, y, f"{style} stroke")
        draw.parts.append(_name(draw, style, label, share, result.threshold))
        base = BOTTOM + 4 + 10 * row
        for at in draw.x(np.unique(np.round(distances[of & ~right], 2))):
            draw.parts.append(polyline((at, at), (base, base + 8), f"{style} rug"))
    _threshold(draw, result)
    rejects, accepts = int((is_same & ~right).sum()), int((~is_same & ~right).sum())
    wrong = (
        f"{whole(rejects)} of {whole(result.genuine_pairs)} genuine pairs rejected, "
        f"{whole(accepts)} of {whole(result.impostor_pairs)} impostor pairs accepted"
    )
    low, high = min(result.thresholds), max(result.thresholds)
    return Chart(
        title="How far apart the pairs are",
        svg=draw.svg(f"Histograms of distances; threshold {result.threshold:.2f}; {wrong}."),
        caption=(
            "How the distances of the pairs of one person and of two people are spread. The less "
            "the two overlap, the better. Pairs left of the dashed line are taken for one person; "
            f"it is the mean of the folds' thresholds, {low:.2f} to {high:.2f}. Ticks below the "
            f"axis are the errors: {wrong}. Cosine similarity is 1 − distance / 2. "
            + _cosine_words(distances, is_same)
        ),
        header=("Quantile of distance", "Genuine", "Impostor"),
        rows=[
            (f"{100 * q:g} %", *(f"{np.quantile(distances[of], q):.3f}" for _, _, of in kinds))
            for q in _QUANTILES
        ],
    )


def _cosine_words(distances: np.ndarray, is_same: np.ndarray) -> str:
    """Say where the genuine cosines end and how far the impostors' reach, as far as it shows."""
    numbers = distance_distribution(distances, is_same)
    words = f"In cosines, the impostors' standard deviation is {numbers.negative_std:.3f}"
    for name, value, what in (
        ("tail", numbers.tail, f"{100 * TAIL_SHARE:g} % of them lie above"),
        ("boundary", numbers.boundary, f"{100 * BOUNDARY_SHARE:g} % of the genuine ones lie below"),
    ):
        if value is None:
            words += f"; {whole(numbers.needs[name])} are needed to say what {what}"
        else:
            few = " (coarse: fewer than ten decide)" if name in numbers.coarse else ""
            words += f"; {what} {value:.3f}{few}"
    return f"{words}."


def _name(draw: Drawing, style: str, label: str, share: np.ndarray, threshold: float) -> str:
    """Write ``label`` over the peak, but on its own side of the threshold."""
    peak, limit = float(draw.x(_BINS[share.argmax()] + 0.025)), float(draw.x(threshold))
    above = float(draw.y(100 * share.max())) - 8
    half = 4.3 * len(label) + 8
    x = min(peak, limit - half) if style == "genuine" else max(peak, limit + half)
    return text(x, above, label, f"{style} name", anchor="middle")


def _threshold(draw: Drawing, result: VerificationResult) -> None:
    extent = (draw.y.low, draw.y.high)
    at = float(draw.x(result.threshold))
    draw.box((min(result.thresholds), max(result.thresholds)), extent, "range")
    draw.line((result.threshold, result.threshold), extent, "threshold")
    aside, anchor = (-7, "end") if at > (LEFT + RIGHT) / 2 else (7, "start")
    words = f"threshold {result.threshold:.2f}"
    draw.parts.append(text(at + aside, TOP + 8, words, anchor=anchor))


def fold_chart(result: VerificationResult) -> Chart:
    """Draw the accuracy of each fold, their mean and its interval."""
    values = [100 * accuracy for accuracy in result.fold_accuracies]
    low, high = (100 * end for end in result.confidence_interval)
    extent, mean = (0.5, result.folds + 0.5), 100 * result.accuracy
    draw = Drawing(Scale(*extent, LEFT, RIGHT), percent_scale([*values, low, high]))
    every = math.ceil(result.folds / 12)
    draw.axes(
        x_label="fold",
        y_label="pairs decided rightly (%)",
        x_ticks=[(k, str(k)) for k in range(1, result.folds + 1, every)],
        y_ticks=[(value, f"{value:g}") for value in draw.y.ticks()],
    )
    draw.box(extent, (low, high), "model band")
    draw.line(extent, (mean, mean), "model stroke")
    for k, value in enumerate(values, 1):
        draw.line((k, k), (mean, value), "stem")
        draw.mark(k, value, 0, "model mark", f"fold {k}: {value:.2f} %")
    others = result.folds - 1
    return Chart(
        title="Accuracy of each fold",
        svg=draw.svg(
            f"Accuracy of {result.folds} folds, from {min(values):.2f} to {max(values):.2f} %."
        ),
        caption=(
            f"A dot is a fold, decided at the threshold that the other {others} choose. The line "
            f"is their mean, the band its 95 % interval (Student's t, {others} degrees of freedom)."
        ),
        header=("Fold", "Accuracy (%)", "Threshold"),
        rows=[
            (str(k), f"{value:.2f}", f"{threshold:.2f}")
            for k, (value, threshold) in enumerate(zip(values, result.thresholds, strict=True), 1)
        ],
    )


def history_chart(history: Sequence[tuple[int, float]], levels: Mapping[str, float]) -> Chart:
    """Draw accuracy over training steps, and that of the baselines (``levels``) as level lines."""
    steps = [step for step, _ in history]
    values = [100 * accuracy for _, accuracy in history]
    first, last = min(steps), max(max(steps), min(steps) + 1)
    draw = Drawing(
        Scale(first, last, LEFT, RIGHT - 8),
        percent_scale([*values, *(100 * level for level in levels.values())]),
    )
    draw.axes(
        x_label="training step",
        y_label="accuracy (%)",
        x_ticks=[(step, whole(round(step))) for step in draw.x.ticks(5) if step % 1 == 0],
        y_ticks=[(value, f"{value:g}") for value in draw.y.ticks()],
    )
    legend = [(line_sample("model stroke"), "this model")]
    for shape, (name, level) in enumerate(levels.items(), 1):
        style = f"other dash-{shape % 3}"
        draw.line((first, last), (100 * level, 100 * level), style)
        legend.append((line_sample(style), name))
    draw.line(steps, values, "model stroke")
    for step, value in zip(steps, values, strict=True):
        draw.mark(step, value, 0, "model mark", f"step {step}: {value:.2f} %")
    return Chart(
        title="Accuracy during training",
        svg=draw.svg(f"Accuracy from {values[0]:.2f} % to {values[-1]:.2f} % in training."),
        caption=(
            "Accuracy on these pairs each time it was measured. Where the same pairs chose when to "
            "stop, the last accuracy flatters the model."
        ),
        header=("Step", "Accuracy (%)"),
        rows=[(whole(step), f"{100 * accuracy:.2f}") for step, accuracy in history],
        legend=legend,
    )
