"""The k-fold protocol with a PCA that is fitted on each fold's training pairs.

An option of the classic evaluators: embeddings are normalised, a PCA of K components is fitted on
both sides of the other folds' pairs, all embeddings are projected and normalised again. It tells
how much a model's scores gain, or lose, from fewer dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arcface_plus.evaluation.pairs.tenfold import FoldResult, evaluate_folds, fold_bounds
from arcface_plus.evaluation.pairs.verification import (
    FAR_TARGETS,
    VerificationResult,
    check_protocol,
    checked_pairs,
    squared_distances,
    summarize,
    unit_rows,
)


def verify_with_pca(
    embeddings_a: np.ndarray,
    embeddings_b: np.ndarray,
    is_same: np.ndarray,
    components: int,
    folds: int = 10,
    *,
    fars: Sequence[float] = FAR_TARGETS,
) -> tuple[VerificationResult, np.ndarray]:
    """Score pairs of (N, D) embeddings, and return the (N,) squared distances as well.

    The distance of a pair is the one under the PCA of its own fold, which has not seen it; AUC, EER
    and TAR, which need one list of distances, are of these.

    Raises ValueError as ``verify``, and for ``components`` outside 1 to D or beyond what the
    training pairs can tell.
    """
    a, b, same = checked_pairs(embeddings_a, embeddings_b, is_same)
    check_protocol(same, folds)
    a, b = unit_rows(a, "embeddings_a[{}]".format), unit_rows(b, "embeddings_b[{}]".format)
    bounds = fold_bounds(len(same), folds)
    fewest = 2 * (len(same) - int(np.diff(bounds).max()))
    if not 1 <= components <= min(a.shape[1], fewest):
        raise ValueError(
            f"PCA to {components} components needs 1 to {min(a.shape[1], fewest)}: the embeddings "
            f"have {a.shape[1]} dimensions and the training folds {fewest} of them."
        )
    own = np.empty(len(same))
    accuracies, thresholds = np.empty(folds), np.empty(folds)
    for fold in range(folds):
        held_out = np.zeros(len(same), dtype=bool)
        held_out[bounds[fold] : bounds[fold + 1]] = True
        distances = _projected_distances(a, b, ~held_out, components)
        own[held_out] = distances[held_out]
        scored = evaluate_folds(distances, same, folds=folds)
        accuracies[fold], thresholds[fold] = scored.accuracies[fold], scored.thresholds[fold]
    return summarize(own, same, FoldResult(accuracies, thresholds), fars=fars), own


def _projected_distances(
    a: np.ndarray, b: np.ndarray, training: np.ndarray, components: int
) -> np.ndarray:
    from sklearn.decomposition import PCA  # here, because scikit-learn is slow to import

    # Exact, without a random start, and what scikit-learn takes by itself for this shape.
    pca = PCA(components, svd_solver="covariance_eigh").fit(
        np.concatenate([a[training], b[training]])
    )
    return squared_distances(pca.transform(a), pca.transform(b))
