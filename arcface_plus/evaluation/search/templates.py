"""Template verification as in IJB-B and IJB-C: pool images, compare templates, TAR@FAR.

Shapes: N images, T templates, P pairs, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from arcface_plus.data.ijb_meta import TemplatePairs
from arcface_plus.evaluation.pairs.roc import (
    TarAtFar,
    distances_needed,
    tar_at_far_of_scores,
    tar_at_nearest_far,
)
from arcface_plus.evaluation.pairs.verification import real_matrix
from arcface_plus.evaluation.search.products import pair_products, unit_rows

IJB_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_ROWS_AT_ONCE = 512  # a float64 copy stays in the cache


@dataclass(frozen=True)
class Templates:
    """Hold T templates: sorted ``ids`` (T,) and ``vectors`` (T, D), as ``unit_rows`` gives them."""

    ids: np.ndarray
    vectors: np.ndarray

    def rows_of(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows of templates ``ids``; ValueError naming one that is not there."""
        rows = np.searchsorted(self.ids, ids)
        absent = np.flatnonzero(self.ids[np.minimum(rows, len(self.ids) - 1)] != ids)
        if absent.size:
            raise ValueError(
                f"{absent.size} of {len(ids)} templates have no image, such as {ids[absent[0]]}."
            )
        return rows


@dataclass(frozen=True)
class TemplateResult(TarAtFar):
    """Hold what ``verify_templates`` measured.

    - ``tar_thresholds``: cosines above which pairs pass.
    - ``nearest_tar``, ``nearest_far``: target → the point of the ROC curve whose FAR is nearest to
      the target, on either side: what insightface's evaluator prints.
    """

    nearest_tar: dict[float, float]
    nearest_far: dict[float, float]
    templates: int
    genuine_pairs: int
    impostor_pairs: int


class TemplatePool:
    """Pool images into templates as they come: mean within a medium, sum over media, unit length.

    ``templates``, ``media`` (N,) whole numbers; ``detector_scores`` (N,) weights, or None for 1
    (insightface's ``use_detector_score``); ``use_norm_score``: keep the embeddings' norms as
    weights, else normalise each first. The mean over a medium is that of its images in one
    template. Sums are in float64: memory is T × D × 8 bytes, whatever N. ``describe(image)`` names
    an image in messages.

    Raises ValueError for counts that differ and weights that are negative or not finite.
    """

    def __init__(
        self,
        templates: np.ndarray,
        media: np.ndarray,
        *,
        detector_scores: np.ndarray | None = None,
        use_norm_score: bool = True,
        describe: Callable[[int], str] = lambda image: f"image {image} (counted from 0)",
    ) -> None:
        if not len(templates) or len(templates) != len(media):
            raise ValueError(
                f"Every image needs a template and a medium, but there are {len(templates)} "
                f"templates and {len(media)} media."
            )
        self.ids, self._row = np.unique(templates, return_inverse=True)
        self._weight = _medium_weights(self._row, media)
        if detector_scores is not None:
            self._weight *= _checked_scores(detector_scores, len(templates))
        self._use_norm = use_norm_score
        self._describe = describe
        self._sums: np.ndarray | None = None
        self._next = 0

    def add(self, embeddings: np.ndarray) -> None:
        """Add the next images' embeddings (n, D), in order.

        Raises ValueError naming an image whose embedding is not finite or is zero, for more images
        than were announced and for another D than before.
        """
        embeddings = real_matrix(embeddings, "an array of embeddings")
        if self._next + len(embeddings) > len(self._row):
            raise ValueError(
                f"There are embeddings of at least {self._next + len(embeddings)} images, but "
                f"{len(self._row)} images have a template."
            )
        if self._sums is None:
            self._sums = np.zeros((len(self.ids), embeddings.shape[1]))
        if embeddings.shape[1] != self._sums.shape[1]:
            raise ValueError(
                f"Embeddings of {self._sums.shape[1]} dimensions are followed by some of "
                f"{embeddings.shape[1]}."
            )
        for start in range(0, len(embeddings), _ROWS_AT_ONCE):
            self._add_block(embeddings[start : start + _ROWS_AT_ONCE])

    def _add_block(self, embeddings: np.ndarray) -> None:
        assert self._sums is not None
        images = slice(self._next, self._next + len(embeddings))
        wide = embeddings.astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
        if bad.size:
            what = "is zero" if norms[bad[0]] == 0 else "has NaN, infinite or too large values"
            raise ValueError(
                f"The embedding of {self._describe(self._next + int(bad[0]))} {what}; check the "
                "model that made it."
            )
        weights = self._weight[images] if self._use_norm else self._weight[images] / norms
        order = np.argsort(self._row[images], kind="stable")
        rows, starts = np.unique(self._row[images][order], return_index=True)
        weighted = wide[order] * weights[order, None]
        self._sums[rows] += np.add.reduceat(weighted, starts)
        self._next += len(embeddings)

    def finish(self) -> Templates:
        """Return the templates.

        Raises ValueError where images are missing, and naming a template that has no direction
        (weights of zero, or images that cancel).
        """
        if self._next != len(self._row) or self._sums is None:
            raise ValueError(
                f"{len(self._row)} images have a template, but there are embeddings of "
                f"{self._next} only."
            )
        vectors = unit_rows(
            self._sums,
            lambda row: f"The pooled template {self.ids[row]} (are all its detector scores 0?)",
        )
        return Templates(self.ids, vectors)


def verify_templates(
    templates: Templates, pairs: TemplatePairs, *, fars: Sequence[float] = IJB_FARS
) -> TemplateResult:
    """Compare pairs of templates by cosine and state TAR at each FAR by both rules.

    Scores are exact, ties included (``products``).

    Raises ValueError for pairs of one kind only, and a FAR outside (0, 1].
    """
    is_same = pairs.is_same
    genuine = int(np.count_nonzero(is_same))
    impostors = len(is_same) - genuine
    if not genuine or not impostors:
        kind = "impostor" if impostors else "genuine"
        raise ValueError(
            f"All {len(is_same)} pairs of {pairs.source} are {kind} pairs; rates need both kinds."
        )
    distances_needed(impostors, fars)  # refuses wrong rates before the work
    scores = pair_products(templates.vectors, pairs.rows_a, pairs.rows_b)
    genuine_scores, impostor_scores = scores[is_same], scores[~is_same]
    # The origin of the curve is as near as twice the target: no point beyond is ever picked.
    needed = min(impostors, math.floor(2 * max(fars, default=0) * impostors) + 2)
    lowest = np.partition(impostor_scores, impostors - needed)[impostors - needed]
    top = impostor_scores[impostor_scores >= lowest]
    nearest_tar, nearest_far = tar_at_nearest_far(-genuine_scores, -top, fars, impostors=impostors)
    return TemplateResult(
        **vars(tar_at_far_of_scores(genuine_scores, top, fars, impostors=impostors)),
        nearest_tar=nearest_tar,
        nearest_far=nearest_far,
        templates=len(templates.ids),
        genuine_pairs=genuine,
        impostor_pairs=impostors,
    )


def _medium_weights(rows: np.ndarray, media: np.ndarray) -> np.ndarray:
    """Return 1 / (images of the same medium in the same template), (N,) float64."""
    _, medium = np.unique(media, return_inverse=True)
    both = rows.astype(np.int64) * (int(medium.max()) + 1) + medium
    _, place, counts = np.unique(both, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[place])


def _checked_scores(scores: np.ndarray, images: int) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (images,):
        raise ValueError(f"{images} images need as many detector scores, not {scores.shape}.")
    bad = np.flatnonzero(~np.isfinite(scores) | (scores < 0))
    if bad.size:
        raise ValueError(
            f"The detector score of image {bad[0]} is {scores[bad[0]]:g}, but must be finite and "
            "not negative."
        )
    return scores
