"""Error versus discard: what a quality score is worth.

The threshold stays; the genuine pairs of lowest quality are discarded, more and more of them. With
a good score those that fail go first, and FNMR, the share that fails of the pairs left, falls
(Grother and Tabassi, IEEE TPAMI, 2007). Pairs of one quality go together.

Shapes: M genuine pairs, a pair as good as the worse of its photographs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from arcface_plus.evaluation.benchmark.group_rates import fixed_rate_interval
from arcface_plus.evaluation.pairs.roc import Record

LIMIT = 0.2  # who discards more than a fifth of the photographs has other problems; ours
SHOWN_AT = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2)


@dataclass(frozen=True)
class DiscardPoint(Record):
    """Hold FNMR, and its 95 % interval, of the ``pairs`` left after ``discarded`` (a share)."""

    fraction: float
    discarded: float
    pairs: int
    fnmr: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class DiscardCurve(Record):
    """Hold FNMR over the share of genuine pairs that is discarded, for one quality score.

    - ``threshold``: squared L2. ``threshold_of``: how it was chosen.
    - ``discarded`` (K,), ``fnmr`` (K,): the corners of the curve, a step function: from each share
      on this FNMR, until the next.
    - ``area``: under the curve from 0 to ``limit``. ``area_random``: of discarding at random (level
      on average). ``area_ideal``: of discarding all that fail first.
    - ``points``: the curve at some shares, with intervals.
    """

    quality: str
    threshold: float
    threshold_of: str
    discarded: np.ndarray
    fnmr: np.ndarray
    area: float
    area_random: float
    area_ideal: float
    limit: float
    points: tuple[DiscardPoint, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain types that JSON can hold."""
        return super().to_dict() | {
            "cosine_threshold": 1 - self.threshold / 2,
            "discarded": self.discarded[self.discarded <= self.limit].tolist(),
            "fnmr": self.fnmr[self.discarded <= self.limit].tolist(),
            "points": [each.to_dict() for each in self.points],
        }


def discard_curve(
    quality: str,
    scores: np.ndarray,
    distances: np.ndarray,
    threshold: float,
    threshold_of: str,
    people: tuple[list[str], list[str]] | None,
) -> DiscardCurve:
    """Return the curve of (M,) quality ``scores`` of genuine pairs with (M,) ``distances``.

    ``people``: the M names of either side, where they are known. Raises ValueError for scores that
    are not finite, and where all are the same: they order nothing.
    """
    _check_scores(quality, scores)
    order = np.argsort(scores, kind="stable")
    wrong = (distances >= threshold)[order]
    first = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)  # of each level of quality
    left = len(scores) - first
    discarded = first / len(scores)
    fnmr = (wrong.sum() - np.concatenate([[0], np.cumsum(wrong)])[first]) / left
    points = []
    for fraction in SHOWN_AT:
        level = int(np.searchsorted(discarded, fraction, side="right")) - 1
        kept = order[first[level] :]
        names = None if people is None else tuple([side[i] for i in kept] for side in people)
        interval, _, _ = fixed_rate_interval(
            distances[kept] >= threshold, np.ones(len(kept), dtype=bool), names
        )
        at = float(discarded[level])
        points.append(DiscardPoint(fraction, at, len(kept), float(fnmr[level]), interval))
    return DiscardCurve(
        quality=quality,
        threshold=threshold,
        threshold_of=threshold_of,
        discarded=discarded,
        fnmr=fnmr,
        area=_area(discarded, fnmr),
        area_random=float(fnmr[0]) * LIMIT,
        area_ideal=_ideal_area(float(fnmr[0]), len(scores)),
        limit=LIMIT,
        points=tuple(points),
    )


def _check_scores(quality: str, scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        wrong = int((~np.isfinite(scores)).sum())
        raise ValueError(f"the quality {quality!r} of {wrong} pairs is not finite.")
    # Norms of unit embeddings differ by rounding alone.
    if np.ptp(scores) <= 1e-5 * np.abs(scores).max():
        raise ValueError(
            f"the quality {quality!r} of all pairs is {scores[0]:g}, which orders nothing; norms "
            "need embeddings that are not normalised."
        )


def _area(discarded: np.ndarray, fnmr: np.ndarray) -> float:
    """Return the exact area under the steps, from 0 to the limit."""
    ends = np.minimum(np.append(discarded[1:], 1.0), LIMIT)
    return float(np.sum(np.maximum(ends - discarded, 0) * fnmr))


def _ideal_area(fnmr: float, pairs: int) -> float:
    """Return the area where each discarded pair is one that fails, as long as there are any."""
    failing = round(fnmr * pairs)
    discarded = np.arange(pairs)
    curve = np.maximum(failing - discarded, 0) / (pairs - discarded)
    return _area(discarded / pairs, curve)
