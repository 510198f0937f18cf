"""Search a gallery for each probe: where the mate ranks, and the best score of anyone else.

Shapes: P probes, G gallery rows, D dimensions. Rows of the gallery are normalised a block at a
time and multiplied in tiles: memory beyond the embeddings is tens of megabytes, whatever P and G.

Scores are float32 products; each that lies within the rounding error of what it is compared with is
computed again in float64. So ranks are those of float64 products, and a tie counts as one: an other
person at exactly the mate's score ranks before the mate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from arcface_plus.evaluation.search.products import (
    exact_products,
    product_error,
    unit_rows,
)

PROBES_AT_ONCE = 1024
GALLERY_AT_ONCE = 4096
_MATES_AT_ONCE = 4096

Describe = Callable[[int], str]


@dataclass(frozen=True)
class Mates:
    """List (probe, gallery) rows of one person, sorted by probe: (M,) int64 each."""

    probes: np.ndarray
    gallery: np.ndarray


@dataclass(frozen=True)
class Searches:
    """Hold the outcome of P searches.

    ``mated`` (P,) bool; ``mate`` (P,) float64, the best mate's score, −inf where there is none;
    ``rank`` (P,) int64, 1 + the others that score at least as much, 0 where there is no mate;
    ``other`` (P,) float64, the best score of an unmated search, −inf where there is a mate.
    """

    mated: np.ndarray
    mate: np.ndarray
    rank: np.ndarray
    other: np.ndarray


@dataclass(frozen=True)
class Tile:
    """Hold scores ``cells`` (p, g) of probes from ``first_probe`` and gallery rows from ``first``.

    ``probes`` (p, D) and ``gallery`` (g, D) are their unit rows.
    """

    cells: np.ndarray
    first_probe: int
    first: int
    probes: np.ndarray
    gallery: np.ndarray

    def exact(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return float64 scores of cells (n,)."""
        return exact_products(self.probes, rows, self.gallery, columns)


def find_mates(probe_labels: np.ndarray, gallery_labels: np.ndarray) -> Mates:
    """Return every pair of rows with equal labels."""
    order = np.argsort(gallery_labels, kind="stable")
    ordered = gallery_labels[order]
    start = np.searchsorted(ordered, probe_labels, side="left")
    counts = np.searchsorted(ordered, probe_labels, side="right") - start
    probes = np.repeat(np.arange(len(probe_labels)), counts)
    within = np.arange(len(probes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Mates(probes, order[np.repeat(start, counts) + within])


def tiles(
    probes: np.ndarray, gallery: np.ndarray, describe: Describe, *, start: int = 0
) -> Iterator[Tile]:
    """Yield all scores of unit ``probes`` (P, D) and raw ``gallery`` (G, D), gallery outermost.

    ``start``: number of the gallery's first row. The cells of a tile are overwritten by the next.
    """
    space = np.empty(PROBES_AT_ONCE * GALLERY_AT_ONCE, dtype=np.float32)
    for lo in range(0, len(gallery), GALLERY_AT_ONCE):
        block = unit_rows(gallery[lo : lo + GALLERY_AT_ONCE], _shifted(describe, lo))
        for first in range(0, len(probes), PROBES_AT_ONCE):
            part = probes[first : first + PROBES_AT_ONCE]
            cells = space[: len(part) * len(block)].reshape(len(part), len(block))
            np.matmul(part, block.T, out=cells)
            yield Tile(cells, first, start + lo, part, block)


def search_gallery(
    probes: np.ndarray,
    gallery: np.ndarray,
    mates: Mates,
    *,
    distractors: np.ndarray | None = None,
    describe: Describe = lambda row: f"gallery row {row}",
    describe_distractor: Describe = lambda row: f"distractor row {row}",
) -> Searches:
    """Search ``gallery`` and ``distractors``, people without name, for each unit row of ``probes``.

    ``probes`` (P, D) float32 of unit length; ``gallery`` (G, D), ``distractors`` (N, D) as
    embedded. Raises ValueError by ``describe(row)`` for an embedding without direction.
    """
    error = product_error(probes.shape[1])
    mated = np.zeros(len(probes), dtype=bool)
    mated[mates.probes] = True
    mate = _best_mates(probes, gallery, mates, describe)
    ahead = np.zeros(len(probes), dtype=np.int64)
    other = np.full(len(probes), -np.inf)
    parts = [(gallery, describe, 0)]
    if distractors is not None:
        parts.append((distractors, describe_distractor, len(gallery)))
    bound = np.where(mated, mate, np.inf)
    for rows, name, start in parts:
        for tile in tiles(probes, rows, name, start=start):
            part = slice(tile.first_probe, tile.first_probe + len(tile.probes))
            _strike_out(tile, mates)
            ahead[part] += count_at_least(tile, bound[part], error)
            raise_best(tile, other[part], ~mated[part], error)
    return Searches(mated, mate, np.where(mated, ahead + 1, 0), other)


def count_at_least(tile: Tile, bound: np.ndarray, error: float) -> np.ndarray:
    """Return how many cells of each row are at least ``bound`` (p,) float64, (p,) int64."""
    low = np.nextafter((bound - error).astype(np.float32), np.float32(-np.inf))
    high = np.nextafter((bound + error).astype(np.float32), np.float32(np.inf))
    above = np.count_nonzero(tile.cells > high[:, None], axis=1)
    close = np.flatnonzero(np.count_nonzero(tile.cells >= low[:, None], axis=1) != above)
    if close.size:
        cells = tile.cells[close]
        row, column = np.nonzero((cells >= low[close, None]) & (cells <= high[close, None]))
        row = close[row]
        counted = row[tile.exact(row, column) >= bound[row]]
        above += np.bincount(counted, minlength=len(above))
    return np.asarray(above)


def raise_best(tile: Tile, best: np.ndarray, chosen: np.ndarray, error: float) -> None:
    """Raise ``best`` (p,) float64, in place, to the largest cell of each ``chosen`` (p,) row."""
    rows = np.flatnonzero(chosen)
    if not rows.size:
        return
    cells = tile.cells if len(rows) == len(chosen) else tile.cells[rows]
    largest = cells.max(axis=1).astype(np.float64)
    # Struck-out rows are −inf throughout; others below what is known cannot raise it.
    may = np.flatnonzero(np.isfinite(largest) & (largest + error >= best[rows]))
    if may.size:
        row, column = np.nonzero(cells[may] >= (largest[may] - 2 * error)[:, None])
        row = rows[may[row]]
        np.maximum.at(best, row, tile.exact(row, column))


def _best_mates(
    probes: np.ndarray, gallery: np.ndarray, mates: Mates, describe: Describe
) -> np.ndarray:
    best = np.full(len(probes), -np.inf)
    for start in range(0, len(mates.probes), _MATES_AT_ONCE):
        part = slice(start, start + _MATES_AT_ONCE)
        rows = mates.gallery[part]
        unit = unit_rows(gallery[rows], _chosen(describe, rows))
        scores = exact_products(probes, mates.probes[part], unit, np.arange(len(rows)))
        np.maximum.at(best, mates.probes[part], scores)
    return best


def _strike_out(tile: Tile, mates: Mates) -> None:
    """Set the cells of mates to −inf: they are no others."""
    lo, hi = np.searchsorted(mates.probes, [tile.first_probe, tile.first_probe + len(tile.probes)])
    column = mates.gallery[lo:hi] - tile.first
    here = (column >= 0) & (column < tile.cells.shape[1])
    tile.cells[mates.probes[lo:hi][here] - tile.first_probe, column[here]] = -np.inf


def _shifted(describe: Describe, start: int) -> Describe:
    return lambda row: describe(start + row)


def _chosen(describe: Describe, rows: np.ndarray) -> Describe:
    return lambda row: describe(int(rows[row]))
