"""1:1 verification: k-fold accuracy, areas and rates of a set of pairs.

Shapes: N pairs, D dimensions, K folds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from arcface_plus.data.pairs.labels import boolean_labels
from arcface_plus.evaluation.pairs.intervals import student_quantile
from arcface_plus.evaluation.pairs.roc import (
    TarAtFar,
    area_under_curve,
    equal_error_rate,
    tar_at_far,
)
from arcface_plus.evaluation.pairs.tenfold import FoldResult, evaluate_folds, fold_bounds

FAR_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_SMALLEST_NORM = 1e-150  # squares below lose digits, then vanish
_GATHERED_AT_ONCE = 2048  # both sides of a block stay in a cache of a few megabytes
_ROWS_AT_ONCE = 65_536  # bounds float64 copies to 0.5 GiB each at 1 024 dimensions


@dataclass(frozen=True)
class VerificationResult(TarAtFar):
    """Hold what ``verify`` measured.

    - ``accuracy``, ``accuracy_std``: mean and population standard deviation over folds.
    - ``fold_accuracies``, ``thresholds``: a number per fold; thresholds are squared L2 distances of
      unit vectors, 0 to 4 (cosine similarity = 1 - threshold / 2).
    - ``confidence_interval``: 95 % for the mean, Student's t with K - 1 degrees of freedom, cut to
      [0, 1]. Folds that share people make it too narrow; ``intervals`` knows a better one.
    - ``auc``, ``eer``: over all pairs.
    - ``tar_thresholds``: squared L2, as ``thresholds``.
    """

    accuracy: float
    accuracy_std: float
    fold_accuracies: tuple[float, ...]
    thresholds: tuple[float, ...]
    confidence_interval: tuple[float, float]
    auc: float
    eer: float
    genuine_pairs: int
    impostor_pairs: int

    @property
    def folds(self) -> int:
        return len(self.fold_accuracies)

    @property
    def threshold(self) -> float:
        """Mean of the folds' thresholds: the one to take away (squared L2)."""
        return float(np.mean(self.thresholds))

    @property
    def cosine_thresholds(self) -> tuple[float, ...]:
        """The folds' thresholds as cosine similarities of unit vectors: 1 - d / 2."""
        return tuple(1 - threshold / 2 for threshold in self.thresholds)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types that JSON can hold; rates become text keys, infinity becomes None."""
        numbers = super().to_dict()
        del numbers["far_reached"]
        return numbers | {
            "folds": self.folds,
            "threshold": self.threshold,
            "cosine_thresholds": list(self.cosine_thresholds),
            "cosine_threshold": 1 - self.threshold / 2,
        }


def verify(
    embeddings_a: ArrayLike,
    embeddings_b: ArrayLike,
    is_same: ArrayLike,
    folds: int = 10,
    *,
    fars: Sequence[float] = FAR_TARGETS,
) -> VerificationResult:
    """Score pairs of embeddings by the k-fold protocol of LFW View 2.

    ``embeddings_a``, ``embeddings_b``: (N, D), any real dtype, normalised here in float64; give
    f(x) + f(flip x) for the published protocol. ``is_same``: (N,) booleans. Pairs stay in the order
    given: folds are contiguous.

    Raises ValueError for shapes that do not match, fewer pairs than folds, a fold of one kind only,
    and embeddings that are not finite or are zero.
    """
    a, b, same = checked_pairs(embeddings_a, embeddings_b, is_same)
    return verify_distances(squared_distances(a, b), same, folds, fars=fars)


def verify_distances(
    distances: np.ndarray,
    is_same: np.ndarray,
    folds: int = 10,
    *,
    fars: Sequence[float] = FAR_TARGETS,
) -> VerificationResult:
    """Score pairs by their (N,) squared distances; as ``verify`` otherwise."""
    check_protocol(is_same, folds)
    return summarize(distances, is_same, evaluate_folds(distances, is_same, folds=folds), fars=fars)


def checked_pairs(
    embeddings_a: ArrayLike, embeddings_b: ArrayLike, is_same: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both sides (N, D) and the labels (N,) bool; ValueError where they do not match."""
    same = boolean_labels(is_same, where="is_same")
    a, b = real_matrix(embeddings_a, "embeddings_a"), real_matrix(embeddings_b, "embeddings_b")
    if a.shape != b.shape or len(a) != len(same):
        raise ValueError(
            f"Pairs need as many rows on both sides as labels: embeddings_a is {a.shape}, "
            f"embeddings_b {b.shape}, is_same ({len(same)},)."
        )
    return a, b, same


def check_protocol(is_same: np.ndarray, folds: int) -> None:
    """Raise ValueError for fewer pairs than folds, and where all pairs, or those of a fold, are of
    one kind.
    """
    if folds < 2 or len(is_same) < folds:
        raise ValueError(
            f"{len(is_same)} pairs cannot make {folds} folds: at least 2 folds with a pair in each "
            "are needed; lower folds or give more pairs."
        )
    if is_same.all() or not is_same.any():
        kind = "genuine" if is_same.all() else "impostor"
        raise ValueError(
            f"All {len(is_same)} pairs are {kind} pairs; accuracy and rates need both kinds. Add "
            "pairs of the other kind."
        )
    bounds = fold_bounds(len(is_same), folds)
    genuine = np.add.reduceat(is_same, bounds[:-1], dtype=np.int64)
    wrong = np.flatnonzero((genuine == 0) | (genuine == np.diff(bounds)))
    if len(wrong):
        kind = "genuine" if genuine[wrong[0]] else "impostor"
        first, end = bounds[wrong[0] : wrong[0] + 2]
        raise ValueError(
            f"fold {wrong[0] + 1} of {folds} (pairs {first} to {end - 1}) "
            f"holds {kind} pairs alone, but each fold needs both kinds: a set is cut in its order. "
            "Give the number of folds that it was made with (--folds; in a "
            "configuration evaluation.folds), or mix its pairs."
        )


def summarize(
    distances: np.ndarray,
    is_same: np.ndarray,
    result: FoldResult,
    *,
    fars: Sequence[float] = FAR_TARGETS,
) -> VerificationResult:
    """Return all measures of (N,) squared distances whose folds were scored already."""
    genuine, impostor = distances[is_same], distances[~is_same]
    return VerificationResult(
        **vars(tar_at_far(genuine, impostor, fars)),
        accuracy=float(np.mean(result.accuracies)),
        accuracy_std=float(np.std(result.accuracies)),
        fold_accuracies=tuple(result.accuracies.tolist()),
        thresholds=tuple(result.thresholds.tolist()),
        confidence_interval=t_interval(result.accuracies),
        auc=area_under_curve(genuine, impostor),
        eer=equal_error_rate(genuine, impostor),
        genuine_pairs=len(genuine),
        impostor_pairs=len(impostor),
    )


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Σ(a - b)² of the rows after normalising them in float64, (N,).

    Raises ValueError naming the first row that is not finite or has no direction.
    """
    distances = np.empty(len(a), dtype=np.float64)
    for start in range(0, len(a), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        difference = unit_rows(a[rows], "embeddings_a[{}]".format, start)
        difference -= unit_rows(b[rows], "embeddings_b[{}]".format, start)
        distances[rows] = np.sum(np.square(difference), axis=1)
    return distances


def unit_rows(rows: np.ndarray, describe: Callable[[int], str], start: int = 0) -> np.ndarray:
    """Return (N, D) rows normalised in float64; ``describe(start + row)`` names one in messages.

    Raises ValueError naming the first row that is not finite or has no direction.
    """
    wide = np.ascontiguousarray(rows, dtype=np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    bad = np.flatnonzero(~np.isfinite(norms) | (norms < _SMALLEST_NORM))
    if bad.size:
        row = wide[bad[0]]
        what = "is zero" if not row.any() else "has NaN or infinite values"
        if np.isfinite(row).all() and row.any():
            what = f"has a norm that float64 cannot hold (largest value {np.abs(row).max():g})"
        raise ValueError(
            f"{describe(start + int(bad[0]))} {what}, so it has no direction to compare "
            f"({bad.size} such rows here); check the model that made it."
        )
    return np.asarray(wide / norms[:, None])


def row_products(
    a: np.ndarray, rows_a: np.ndarray, b: np.ndarray, rows_b: np.ndarray
) -> np.ndarray:
    """Return the products (P,) float64 of rows of (T, D) and (U, D), few copies at a time."""
    products = np.empty(len(rows_a))
    for start in range(0, len(rows_a), _GATHERED_AT_ONCE):
        part = slice(start, start + _GATHERED_AT_ONCE)
        wide = a[rows_a[part]].astype(np.float64)
        np.einsum("ij,ij->i", wide, b[rows_b[part]], out=products[part])
    return products


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """Return Student's 95 % interval for the mean of K >= 2 rates, K - 1 degrees of freedom."""
    mean = float(np.mean(values))
    half = student_quantile(len(values) - 1) * float(np.std(values, ddof=1))
    half /= math.sqrt(len(values))
    return max(0.0, mean - half), min(1.0, mean + half)


def real_matrix(values: ArrayLike, name: str) -> np.ndarray:
    """Return ``values`` as an array; ValueError unless they are (N, D) real numbers, D >= 1."""
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or array.shape[1] == 0:
        raise ValueError(
            f"{name} must be (rows, dimensions) of real numbers, but is {array.dtype} of shape "
            f"{array.shape}."
        )
    return array
