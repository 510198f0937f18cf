"""From a cosine to a likelihood ratio, and how good such ratios are.

Shapes: N pairs.

The likelihood ratio of a pair is how much more often a cosine like its own is met in genuine pairs
than in impostor pairs. It does not depend on how many of either there are: with the odds of a prior
it gives the odds that the two are one person. Logarithms are natural ones; costs are in bits.

The fit is isotonic regression (PAV; Zadrozny and Elkan, KDD 2002) with both kinds of equal weight,
so that its odds are likelihood ratios. One pair of each kind is added at either end: a ratio beyond
what so many pairs can show is never stated. Cllr is Brümmer and du Preez's (Computer Speech and
Language, 2006).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from arcface_plus.evaluation.pairs.roc import Record
from arcface_plus.evaluation.pairs.tenfold import fold_bounds


@dataclass(frozen=True)
class RatioCurve:
    """Hold log likelihood ratios at some cosines, both rising; straight between, level outside."""

    cosines: tuple[float, ...]
    log_ratios: tuple[float, ...]

    def at(self, cosines: np.ndarray | float) -> np.ndarray:
        """Return the log likelihood ratio of each cosine, in the same shape."""
        return np.asarray(np.interp(cosines, self.cosines, self.log_ratios))


@dataclass(frozen=True)
class CalibrationQuality(Record):
    """Hold what held-out likelihood ratios cost, in bits a pair: 0 is perfect, 1 knows nothing.

    - ``cllr``: of ratios that a fit on the other folds gives.
    - ``min_cllr``: of the same ratios after the best monotone correction, made with the answers
      known; the rest is lost by calibration.
    """

    cllr: float
    min_cllr: float
    folds: int


def fit_ratios(cosines: np.ndarray, is_same: np.ndarray) -> RatioCurve:
    """Return the isotonic likelihood ratios of (N,) ``cosines``; both kinds must be there."""
    ends = np.array([1.0, 1.0, -1.0, -1.0])
    scores = np.concatenate([cosines, ends])
    same = np.concatenate([is_same, [True, False, True, False]])
    fitted = _isotonic(scores, same, is_same)
    order = np.argsort(scores, kind="stable")
    scores, fitted = scores[order], fitted[order]
    # A step is level between its first and last cosine: two points each are enough.
    step = np.flatnonzero(np.diff(fitted)) + 1
    points = np.unique(np.concatenate([[0], step - 1, step, [len(scores) - 1]]))
    odds = fitted[points] / (1 - fitted[points])
    return RatioCurve(tuple(scores[points].tolist()), tuple(np.log(odds).tolist()))


def held_out_ratios(cosines: np.ndarray, is_same: np.ndarray, folds: int) -> np.ndarray:
    """Return the log likelihood ratio (N,) of each pair by a fit on the other folds.

    Folds are those of ``tenfold``: contiguous. Raises ValueError where the others lack a kind.
    """
    bounds = fold_bounds(len(cosines), folds)
    ratios = np.empty(len(cosines))
    for lo, hi in pairwise(bounds.tolist()):
        others = np.ones(len(cosines), dtype=bool)
        others[lo:hi] = False
        if is_same[others].all() or not is_same[others].any():
            raise ValueError(
                f"without pairs {lo} to {hi - 1}, a fold, one kind of pair alone is left to fit; "
                "mix genuine and impostor pairs, or give another --folds."
            )
        ratios[lo:hi] = fit_ratios(cosines[others], is_same[others]).at(cosines[lo:hi])
    return ratios


def calibration_quality(ratios: np.ndarray, is_same: np.ndarray, folds: int) -> CalibrationQuality:
    """Return Cllr and minCllr of (N,) log likelihood ratios."""
    best = _isotonic(ratios, is_same, is_same)
    with np.errstate(divide="ignore"):  # pairs beyond all of the other kind: certain, at no cost
        corrected = np.log(best) - np.log1p(-best)
    return CalibrationQuality(log_cost(ratios, is_same), log_cost(corrected, is_same), folds)


def log_cost(ratios: np.ndarray, is_same: np.ndarray) -> float:
    """Return Cllr, ½ (mean log₂(1 + 1/LR) of genuine + mean log₂(1 + LR) of impostor pairs)."""
    genuine = np.logaddexp(0, -ratios[is_same]).mean()
    impostor = np.logaddexp(0, ratios[~is_same]).mean()
    return float((genuine + impostor) / (2 * np.log(2)))


def probability(log_ratio: float, prior: float) -> float:
    """Return the probability of one person, by Bayes' rule from a prior in (0, 1)."""
    if not 0 < prior < 1:
        raise ValueError(
            f"the prior is {prior:g}, but must lie between 0 and 1: how probable it is, before one "
            "looks, that both photographs show one person."
        )
    return float(1 / (1 + (1 - prior) / prior * np.exp(-log_ratio)))


def _isotonic(scores: np.ndarray, same: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the isotonic share of genuine pairs at each score, both kinds of ``counted`` alike."""
    from sklearn.isotonic import IsotonicRegression

    genuine = int(counted.sum())
    weights = np.where(same, 1 / genuine, 1 / (len(counted) - genuine))
    fit = IsotonicRegression().fit(scores, same.astype(np.float64), weights)
    return np.asarray(fit.predict(scores))
