"""Draw pairs anew, for the bootstrap, so that it respects that pairs share people.

Shapes: N pairs, K folds, U units that are drawn, R replicates.

Every photograph of a person helps to decide several pairs, so pairs are not independent. Where
names are known the units are people (the vertex bootstrap of Snijders and Borgatti, 1999): a pair
of one person counts as often as that person was drawn, a pair of two people as often as the product
of both. People are drawn within their fold where no person is in two folds, as LFW's View 2 is cut;
else from the whole set. Without names, or with fewer than five people, the units are pairs, drawn
within fold and kind.

The product counts the luck of a single impostor pair up to three times (Owen and Eckles, 2012), so
people err on the wide side and pairs on the narrow one. In simulations of ten folds with person
effects, intervals that should hold the truth 95 times in 100 held it 96 to 100 times with people,
and with pairs 95 times where most people are in one or two pairs and 85 to 92 where they are in
many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from arcface_plus.evaluation.tenfold import fold_bounds

PEOPLE_WITHIN_FOLDS = "people within folds"
PEOPLE = "people"
PAIRS = "pairs within folds"

FEWEST_PEOPLE = 5
_CELLS_AT_ONCE = 1_000_000  # weights held at once: 8 MiB


@dataclass(frozen=True)
class ResamplingPlan:
    """State what is drawn, and how draws become weights of pairs.

    - ``basis``: ``PEOPLE_WITHIN_FOLDS``, ``PEOPLE`` or ``PAIRS``.
    - ``blocks``: (U,) int64; units are drawn within their block, as many as it has.
    - ``unit_a``, ``unit_b``: (N,) int64 units of each pair; the same one counts once.
    - ``stratum``: (N,) int64; each keeps its total weight, for the protocol fixes how many pairs of
      each kind there are.
    - ``share``: (N,) float64 weight of a pair before drawing: 1 / (K · pairs in its fold), so that
      weighted accuracy is the mean over folds.
    """

    basis: str
    blocks: np.ndarray
    unit_a: np.ndarray
    unit_b: np.ndarray
    stratum: np.ndarray
    share: np.ndarray

    @property
    def units(self) -> int:
        return len(self.blocks)


def plan_resampling(
    is_same: np.ndarray, folds: int, people: tuple[Sequence[str], Sequence[str]] | None = None
) -> ResamplingPlan:
    """Choose what to draw: people (``people``: the N names of either side) or pairs.

    Raises ValueError for names that are not one a pair.
    """
    count = len(is_same)
    bounds = fold_bounds(count, folds)
    fold = np.repeat(np.arange(folds), np.diff(bounds))
    stratum = 2 * fold + is_same
    share = 1 / (folds * np.diff(bounds)[fold])
    if people is not None:
        if len(people[0]) != count or len(people[1]) != count:
            raise ValueError(
                f"{len(people[0])} and {len(people[1])} names for {count} pairs; give the name of "
                "either side of every pair."
            )
        known, codes = np.unique(np.concatenate([people[0], people[1]]), return_inverse=True)
        if len(known) >= FEWEST_PEOPLE:
            a, b = codes[:count], codes[count:]
            home = _fold_of_people(np.concatenate([a, b]), np.concatenate([fold, fold]))
            if home is not None and np.bincount(home).min() >= FEWEST_PEOPLE:
                return ResamplingPlan(PEOPLE_WITHIN_FOLDS, home, a, b, stratum, share)
            whole = np.zeros(len(known), dtype=np.int64)
            return ResamplingPlan(PEOPLE, whole, a, b, is_same.astype(np.int64), share)
    every = np.arange(count)
    return ResamplingPlan(PAIRS, stratum, every, every, stratum, share)


def draw_weights(plan: ResamplingPlan, replicates: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield (r, N) float64 weights of pairs, ``replicates`` rows in all; each row sums to 1.

    Replicates that leave a stratum without a pair are left out, so there may be fewer.
    """
    rng = np.random.default_rng(seed)
    kinds, stratum = np.unique(plan.stratum, return_inverse=True)
    member = np.equal.outer(stratum, np.arange(len(kinds))).astype(np.float64)
    totals = plan.share @ member
    at_once = max(1, _CELLS_AT_ONCE // max(len(plan.share), plan.units))
    for start in range(0, replicates, at_once):
        counts = _draw_units(plan.blocks, min(at_once, replicates - start), rng)
        drawn = counts[:, plan.unit_a]
        two = np.flatnonzero(plan.unit_a != plan.unit_b)
        drawn[:, two] *= counts[:, plan.unit_b[two]]
        drawn *= plan.share
        sums = drawn @ member
        whole = (sums > 0).all(axis=1)
        yield drawn[whole] * (totals / sums[whole])[:, stratum]


def _fold_of_people(codes: np.ndarray, folds: np.ndarray) -> np.ndarray | None:
    """Return the one fold of each person, or None where a person is in two."""
    home = np.empty(codes.max() + 1, dtype=np.int64)
    home[codes] = folds
    return home if (home[codes] == folds).all() else None


def _draw_units(blocks: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each unit was drawn, (rows, U) float64; every block keeps its size."""
    order = np.argsort(blocks, kind="stable")
    _, begins, sizes = np.unique(blocks[order], return_index=True, return_counts=True)
    begin, size = np.repeat(begins, sizes), np.repeat(sizes, sizes)
    drawn = begin + (rng.random((rows, len(blocks))) * size).astype(np.int64)
    drawn += np.arange(rows)[:, None] * len(blocks)
    counts = np.bincount(drawn.ravel(), minlength=rows * len(blocks)).reshape(rows, -1)
    result = np.empty(counts.shape)
    result[:, order] = counts
    return result
