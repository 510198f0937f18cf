"""TAR at fixed FAR from similarities; larger means the same person.

Two rules. Ours: the largest acceptance whose FAR is at most the target (``evaluation.roc``, for
scores). insightface's: the point of scikit-learn's ROC curve whose FPR is nearest to the target,
which may lie above it.

Only the largest impostor scores matter. They are selected, not sorted among all; what decides is
settled by exact scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from arcface_plus.evaluation.pairs.roc import (
    COARSE_BELOW,
    RefusedFar,
    allowed_false_accepts,
)

Exact = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class TopScores:
    """Hold the largest of ``total`` impostor scores, (M,) float32 in any order, and their pairs."""

    values: np.ndarray
    pairs: np.ndarray
    total: int


@dataclass(frozen=True)
class TarAtScore:
    """State one operating point: accept above ``threshold``; FAR is the one reached, <= target."""

    target: float
    tar: float
    far: float
    threshold: float
    coarse: bool


@dataclass(frozen=True)
class NearestTar:
    """State the point of the ROC curve nearest to a target, as insightface's evaluator picks it."""

    target: float
    tar: float
    far: float


def rates_by_text(values: Mapping[Any, float]) -> dict[str, float | None]:
    """Return ``values`` as JSON can hold them: targets become text, what is not finite None."""
    return {f"{key:g}": value if math.isfinite(value) else None for key, value in values.items()}


def scores_needed(impostors: int, targets: Sequence[float]) -> int:
    """Return how many of the largest impostor scores the targets need.

    Raises ValueError for a target outside (0, 1].
    """
    for target in targets:
        if not 0 < target <= 1:
            raise ValueError(f"A FAR target is a rate in (0, 1], but {target} was asked for.")
    allowed = max((allowed_false_accepts(t, impostors) for t in targets), default=0)
    return min(impostors, allowed + 1)


def select_top(scores: np.ndarray, chosen: np.ndarray, needed: int, error: float) -> TopScores:
    """Return the ``needed`` largest of ``scores[chosen]`` and all that may be larger than they are.

    ``scores`` (P,) float32, wrong by ``error`` at most; ``chosen`` (P,) bool.
    """
    values = scores[chosen]
    total = len(values)
    floor = np.float32(-math.inf)
    if needed < total:
        values.partition(total - needed)
        floor = np.nextafter(np.float32(values[total - needed] - 2 * error), floor)
    pairs = np.flatnonzero(chosen & (scores >= floor))
    return TopScores(scores[pairs], pairs, total)


def tar_at_far_of_scores(
    genuine: np.ndarray,
    impostors: TopScores,
    targets: Sequence[float],
    *,
    error: float,
    exact: Exact,
) -> tuple[list[TarAtScore], list[RefusedFar]]:
    """Return the TAR at the smallest score whose FAR is at most each target, by exact scores.

    ``genuine``: exact scores of genuine pairs. ``impostors``: as ``select_top`` gives for
    ``scores_needed``; ``error``: how far they may be from the exact scores that ``exact(pairs)``
    computes. Pairs are accepted strictly above the threshold, so that impostors who tie with it are
    refused. Refused and coarse targets as ``evaluation.roc.tar_at_far``.
    """
    reached: list[TarAtScore] = []
    refused: list[RefusedFar] = []
    for target in targets:
        allowed = allowed_false_accepts(target, impostors.total)
        if allowed == 0:
            refused.append(RefusedFar(float(target), impostors.total, math.ceil(1 / target)))
            continue
        threshold, accepted = _threshold(impostors, allowed, error, exact)
        reached.append(
            TarAtScore(
                target=float(target),
                tar=float(np.count_nonzero(genuine > threshold) / len(genuine)),
                far=accepted / impostors.total,
                threshold=threshold,
                coarse=allowed < COARSE_BELOW,
            )
        )
    return reached, refused


def tar_at_nearest_far(
    scores: np.ndarray, is_same: np.ndarray, targets: Sequence[float]
) -> list[NearestTar]:
    """Return TPR at the point of ``sklearn.metrics.roc_curve`` whose FPR is nearest each target.

    The points are those the curve keeps: corners, where the numbers of genuine and impostor scores
    at a threshold differ from those at the next. Of two points equally near that of larger FPR
    counts, of those the one of larger TPR. ``scores`` (P,); both kinds of pairs must occur.
    """
    impostor, genuine = scores[~is_same], scores[is_same]
    total_impostor, total_genuine = len(impostor), len(genuine)
    # The origin is as near as twice the target: no point beyond is ever picked.
    needed = min(total_impostor, math.floor(2 * max(targets, default=0) * total_impostor) + 2)
    impostor.partition(total_impostor - needed)
    lowest = impostor[total_impostor - needed]
    whole = needed == total_impostor
    top = np.sort(impostor[impostor >= lowest])
    kept = np.sort(genuine if whole else genuine[genuine >= lowest])
    values = np.unique(np.concatenate([top, kept]))[::-1]
    false_accepts = len(top) - np.searchsorted(top, values, side="left")
    true_accepts = len(kept) - np.searchsorted(kept, values, side="left")
    corner = np.ones(len(values), dtype=bool)
    corner[1:-1] = (np.diff(false_accepts, 2) != 0) | (np.diff(true_accepts, 2) != 0)
    far = np.concatenate([[0.0], false_accepts[corner] / total_impostor])[::-1]
    tar = np.concatenate([[0.0], true_accepts[corner] / total_genuine])[::-1]
    nearest = [int(np.argmin(np.abs(far - target))) for target in targets]  # argmin: the first
    return [
        NearestTar(float(target), float(tar[i]), float(far[i]))
        for target, i in zip(targets, nearest, strict=True)
    ]


def _threshold(impostors: TopScores, allowed: int, error: float, exact: Exact) -> tuple[float, int]:
    """Return the exact score of rank ``allowed`` + 1, and how many impostors lie above it."""
    if allowed == impostors.total:
        return -math.inf, allowed
    values = impostors.values
    assert len(values) > allowed, "fewer scores were kept than the target needs"
    rank = len(values) - allowed - 1
    gap = values - np.float64(np.partition(values, rank)[rank])
    # The order statistic is as exact as the scores; what lies two errors away is on a known side.
    above = int(np.count_nonzero(gap > 2 * error))
    settled = np.sort(exact(impostors.pairs[np.abs(gap) <= 2 * error]))[::-1]
    threshold = float(settled[allowed - above])
    return threshold, above + int(np.count_nonzero(settled > threshold))
