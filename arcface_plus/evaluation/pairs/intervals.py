"""95 % intervals of accuracy, of TAR at a FAR and of the threshold for a FAR.

Shapes: N pairs, K folds, F FAR targets. Units and variances are ``dependence``'s.

A rate p with variance V gets Wilson's score interval at the sample size p (1 - p) / V that has this
variance, with the quantile of Student's t instead of the normal one (Korn and Graubard, 1998;
Franco et al., Journal of Survey Statistics and Methodology, 2019, find it the best of seven for
clustered data): it stays inside [0, 1], and is longer on the side of one half. Where V is 0,
because every pair was decided rightly, the sample size is the number of units.

``tools/bench/bench_coverage.py`` shows how often they hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from arcface_plus.evaluation.pairs.dependence import Units, jackknife_variance
from arcface_plus.evaluation.pairs.roc import COARSE_BELOW, Record, allowed_false_accepts
from arcface_plus.evaluation.pairs.tenfold import fold_bounds

LEVEL = 0.95
REPLICATES = 1000


@dataclass(frozen=True)
class Intervals:
    """Hold the 95 % intervals of a result.

    - ``basis``, ``units``: what was taken for independent, and how many there are.
    - ``accuracy``: of the k-fold accuracy.
    - ``fars`` (F,), ``tar`` (F, 2): of TAR at each FAR target; ``rates`` (F,): that TAR.
    - ``pairs_claim``: what a bootstrap over pairs would state for the accuracy.
    """

    basis: str
    units: int
    accuracy: tuple[float, float]
    fars: np.ndarray
    tar: np.ndarray
    rates: np.ndarray
    pairs_claim: tuple[float, float]

    def to_dict(self) -> dict[str, object]:
        """Return plain types that JSON can hold."""
        tar = {f"{far:g}": ends.tolist() for far, ends in zip(self.fars, self.tar, strict=True)}
        return {
            "basis": self.basis,
            "units": self.units,
            "accuracy": list(self.accuracy),
            "tar_at_far": tar,
            "pairs_would_claim": list(self.pairs_claim),
        }


def score_intervals(
    distances: np.ndarray,
    is_same: np.ndarray,
    thresholds: Sequence[float] | np.ndarray,
    units: Units,
    *,
    fars: Sequence[float] | np.ndarray = (),
) -> Intervals:
    """Return the intervals of k-fold accuracy and of TAR at each of ``fars``.

    ``distances`` (N,) squared L2, ``is_same`` (N,) bool, ``thresholds``: the K folds' own.
    Thresholds are taken as they are: at the best one, accuracy does not change to first order.
    """
    right = right_decisions(distances, is_same, thresholds)
    share = pair_shares(len(distances), len(thresholds))
    targets = np.asarray(fars, dtype=np.float64)
    rates, ends = tar_intervals(distances, is_same, units, targets)
    return Intervals(
        basis=units.basis,
        units=units.count,
        accuracy=rate_interval(
            float(share @ right),
            *jackknife_variance(units, influences(right, share, is_same)),
            units,
        ),
        fars=targets,
        tar=ends,
        rates=rates,
        pairs_claim=bootstrap_over_pairs(right, is_same, len(thresholds)),
    )


def right_decisions(
    distances: np.ndarray, is_same: np.ndarray, thresholds: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Return which pairs are decided rightly at their own fold's threshold, (N,) bool."""
    sizes = np.diff(fold_bounds(len(distances), len(thresholds)))
    limits = np.repeat(np.asarray(thresholds, dtype=np.float64), sizes)
    return np.asarray((distances < limits) == is_same)


def pair_shares(pairs: int, folds: int) -> np.ndarray:
    """Return what each pair counts, (N,), so that the sum over pairs is the mean over folds."""
    sizes = np.diff(fold_bounds(pairs, folds))
    return np.repeat(1 / (folds * sizes), sizes)


def influences(values: np.ndarray, share: np.ndarray, is_same: np.ndarray) -> np.ndarray:
    """Return what each pair adds to Σ share · values beyond the mean of its kind, (N,).

    A protocol fixes how many pairs of each kind there are, so a kind's mean is no luck.
    """
    centred = values.astype(np.float64)
    for kind in (False, True):
        ours = is_same == kind
        centred[ours] -= np.average(centred[ours], weights=share[ours])
    return centred * share


def rate_interval(
    rate: float, variance: float, freedom: float, units: Units
) -> tuple[float, float]:
    """Return Wilson's interval of ``rate`` with Student's t at the size its variance tells."""
    spread = rate * (1 - rate)
    size = spread / variance if variance > 0 and spread > 0 else units.count
    weight = student_quantile(freedom) ** 2 / size
    centre = (rate + weight / 2) / (1 + weight)
    half = math.sqrt(weight * spread + weight**2 / 4) / (1 + weight)
    # The rate is inside; rounding, and a lopsided variance, must not say otherwise.
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))


def tar_intervals(
    distances: np.ndarray, is_same: np.ndarray, units: Units, fars: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return TAR at the largest threshold whose FAR is at most each target, (F,), and its interval.

    The threshold depends on the impostor pairs by chance, too. Accepting one of them too many moves
    TAR along the ROC curve, whose slope is that of the chord over one standard deviation of FAR to
    either side (Woodruff, Journal of the American Statistical Association, 1952).
    """
    genuine, impostor = np.sort(distances[is_same]), np.sort(distances[~is_same])
    rates, ends = np.empty(len(fars)), np.empty((len(fars), 2))
    for row, target in enumerate(fars):
        allowed = allowed_false_accepts(float(target), len(impostor))
        threshold = impostor[allowed] if allowed < len(impostor) else math.inf
        accepted = distances < threshold
        rates[row] = accepted[is_same].mean()
        share = np.where(is_same, 1 / len(genuine), 1 / len(impostor))
        influence = influences(accepted, share, is_same)
        of_far = np.where(is_same, 0.0, influence)
        far = float(accepted[~is_same].mean())
        slope = _roc_slope(genuine, impostor, far, math.sqrt(jackknife_variance(units, of_far)[0]))
        moved = np.where(is_same, influence, -slope * of_far)
        ends[row] = rate_interval(float(rates[row]), *jackknife_variance(units, moved), units)
    return rates, ends


def threshold_at_far(
    distances: np.ndarray, is_same: np.ndarray, units: Units, far: float
) -> FarAdvice:
    """Return the largest threshold whose FAR is at most ``far``, and how sure it is.

    The interval of FAR at that threshold is ``rate_interval``'s; the threshold's own is where FAR
    passes these two rates (Woodruff, 1952).

    Raises ValueError for ``far`` outside (0, 1), and where it allows less than one false accept.
    """
    if not 0 < far < 1:
        raise ValueError(f"A threshold is advised for a FAR between 0 and 1, but {far} was asked.")
    impostor = np.sort(distances[~is_same])
    allowed = allowed_false_accepts(far, len(impostor))
    if allowed == 0:
        raise ValueError(
            f"{len(impostor)} impostor pairs cannot show a FAR of {far:g}, so no threshold can be "
            f"advised for it: {math.ceil(1 / far)} are needed, and ten times as many for a "
            "threshold that is not coarse."
        )
    threshold = float(impostor[allowed])
    accepted = (distances < threshold) & ~is_same
    share = np.where(is_same, 0.0, 1 / len(impostor))
    reached = float(share @ accepted)
    moved = np.where(is_same, 0.0, (accepted - reached) * share)
    low, high = rate_interval(reached, *jackknife_variance(units, moved), units)
    ends = _impostor_quantile(impostor, np.array([low, high]))
    return FarAdvice(
        far=far,
        threshold=threshold,
        threshold_interval=(float(ends[0]), float(ends[1])),
        far_reached=reached,
        far_interval=(low, high),
        coarse=allowed < COARSE_BELOW,
    )


@dataclass(frozen=True)
class FarAdvice(Record):
    """Hold the threshold (squared L2 of unit vectors) for a FAR, and 95 % intervals."""

    far: float
    threshold: float
    threshold_interval: tuple[float, float]
    far_reached: float
    far_interval: tuple[float, float]
    coarse: bool

    def to_dict(self) -> dict[str, object]:
        """Return plain types that JSON can hold, thresholds also as cosine similarities."""
        low, high = self.threshold_interval
        return super().to_dict() | {
            "cosine_threshold": 1 - self.threshold / 2,
            "cosine_threshold_interval": [1 - high / 2, 1 - low / 2],
        }


def bootstrap_over_pairs(
    right: np.ndarray, is_same: np.ndarray, folds: int, *, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of accuracy over 1 000 draws of pairs within fold and kind.

    It takes pairs for independent, so it is too narrow where they share people. A draw of pairs
    with replacement is a binomial count of right ones.
    """
    bounds = fold_bounds(len(right), folds)
    rng = np.random.default_rng(seed)
    drawn = np.zeros(REPLICATES)
    for start, stop in pairwise(bounds.tolist()):
        for kind in (False, True):
            ours = right[start:stop][is_same[start:stop] == kind]
            if len(ours):
                counts = rng.binomial(len(ours), ours.mean(), REPLICATES)
                drawn += counts / ((stop - start) * folds)
    low, high = np.quantile(np.minimum(drawn, 1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def student_quantile(freedom: float) -> float:
    """Return the quantile of Student's t that 95 % lie within, on both sides."""
    from scipy.special import stdtrit  # here, because scipy costs as much to import as the rest

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def _roc_slope(genuine: np.ndarray, impostor: np.ndarray, far: float, deviation: float) -> float:
    low, high = max(0.0, far - deviation), min(1.0, far + deviation)
    if high <= low:
        return 0.0
    ends = _impostor_quantile(impostor, np.array([low, high]))
    tars = np.searchsorted(genuine, ends, side="left") / len(genuine)
    return float((tars[1] - tars[0]) / (high - low))


def _impostor_quantile(impostor: np.ndarray, fars: np.ndarray) -> np.ndarray:
    """Return where FAR passes ``fars``, straight between the sorted distances."""
    return np.interp(fars * len(impostor), np.arange(len(impostor)), impostor)
