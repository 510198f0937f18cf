"""Search a gallery for each probe: where the mate ranks, and the best score of anyone else.

Shapes: P probes, G gallery rows, N distractors, D dimensions. Rows of gallery and distractors are
normalised a block at a time and multiplied in tiles: memory beyond the embeddings is tens of
megabytes and a copy of the gallery, whatever P and N.

Scores are exact (``products``), so a tie counts as one: an other person at exactly the mate's score
ranks before the mate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from arcface_plus.evaluation.pairs.verification import row_products
from arcface_plus.evaluation.search.products import Describe, unit_rows

PROBES_AT_ONCE = 1024
GALLERY_AT_ONCE = 4096


class Searches(NamedTuple):
    """Hold the outcome of P searches.

    ``mate`` (P,) float64, the best mate's score, −inf where there is none; ``rank`` (P,) int64,
    1 + the others that score at least as much, 0 where there is no mate; ``other`` (P,) float64,
    the best score of anybody but the mates.
    """

    mate: np.ndarray
    rank: np.ndarray
    other: np.ndarray


def find_mates(
    probe_labels: np.ndarray, gallery_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return every (probe, gallery) pair of rows with equal labels, sorted by probe: (M,) each."""
    order = np.argsort(gallery_labels, kind="stable")
    ordered = gallery_labels[order]
    start = np.searchsorted(ordered, probe_labels, side="left")
    counts = np.searchsorted(ordered, probe_labels, side="right") - start
    probes = np.repeat(np.arange(len(probe_labels)), counts)
    within = np.arange(len(probes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return probes, order[np.repeat(start, counts) + within]


def tiles(
    probes: np.ndarray, rows: np.ndarray, describe: Describe
) -> Iterator[tuple[slice, int, np.ndarray]]:
    """Yield the scores of unit ``probes`` (P, D) and raw ``rows`` (G, D), tile by tile.

    A tile is the part of the probes, the number of its first row, and scores (p, g) float64.
    """
    for first in range(0, len(rows), GALLERY_AT_ONCE):
        block = unit_rows(rows[first : first + GALLERY_AT_ONCE], describe, first)
        columns = block.astype(np.float64).T
        for start in range(0, len(probes), PROBES_AT_ONCE):
            part = slice(start, min(start + PROBES_AT_ONCE, len(probes)))
            yield part, first, probes[part].astype(np.float64) @ columns


def search_gallery(
    probes: np.ndarray,
    probe_labels: np.ndarray,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    *,
    distractors: np.ndarray | None,
    describe: Describe,
    describe_distractor: Describe,
) -> Searches:
    """Search ``gallery`` and ``distractors``, people without name, for each unit row of ``probes``.

    ``probes`` (P, D) unit rows; ``gallery`` (G, D), ``distractors`` (N, D) as embedded. Raises
    ValueError by ``describe(row)`` for an embedding without direction.
    """
    of_probe, of_gallery = find_mates(probe_labels, gallery_labels)
    mate = np.full(len(probes), -np.inf)
    scores = row_products(probes, of_probe, unit_rows(gallery, describe), of_gallery)
    np.maximum.at(mate, of_probe, scores)
    ahead = np.zeros(len(probes), dtype=np.int64)
    other = np.full(len(probes), -np.inf)

    def compare(part: slice, cells: np.ndarray) -> None:
        ahead[part] += np.count_nonzero(cells >= mate[part, None], axis=1)
        other[part] = np.maximum(other[part], cells.max(axis=1))

    for part, first, cells in tiles(probes, gallery, describe):
        lo, hi = np.searchsorted(of_probe, [part.start, part.stop])
        column = of_gallery[lo:hi] - first
        here = (column >= 0) & (column < cells.shape[1])
        cells[of_probe[lo:hi][here] - part.start, column[here]] = -np.inf  # no others
        compare(part, cells)
    if distractors is not None:
        for part, _, cells in tiles(probes, distractors, describe_distractor):
            compare(part, cells)
    return Searches(mate, np.where(mate > -np.inf, ahead + 1, 0), other)
