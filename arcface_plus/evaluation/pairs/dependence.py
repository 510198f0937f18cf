"""How pairs depend on each other, and how much more uncertain that makes a rate.

Shapes: N pairs, U units (people, or pairs where people are not known).

Every photograph of a person helps to decide several pairs, so pairs are not independent; people
are. Two variances of a rate follow from that, and lie on either side of the right one:

- That of the jackknife which leaves out one person, with all pairs he or she is in, at a time
  (Snijders and Borgatti, Connections, 1999). For any function of independent people it is too large
  on average (Efron and Stein, The Annals of Statistics, 1981): it counts the luck of a single
  impostor pair twice, once for either person. (The bootstrap over people, whose weights are
  products, counts it three times.)
- The same less this second counting, the dyadic-robust variance (Aronow, Samii and Assenova,
  Political Analysis, 2015). It is right for a sum of pairs; here it is a little too small, for the
  thresholds were chosen with the help of the same pairs.

We take the mean of the two, and never less than independent pairs would have. Simulations decided
that: see docs/verification.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PEOPLE = "people"
PHOTOGRAPHS = "photographs"
PAIRS = "pairs"

FEWEST_PEOPLE = 5
Names = tuple[Sequence[str], Sequence[str]]
Rows = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Units:
    """State what is independent, and which pairs depend on it.

    - ``basis``: ``PEOPLE`` (named), ``PHOTOGRAPHS`` (people as far as genuine pairs tell) or
      ``PAIRS``.
    - ``count``: U, the units that some pair needs.
    - ``of_a``, ``of_b``: (N,) int64, the units of either side, 0 to U - 1; equal for a pair that
      depends on one unit.
    - ``meeting``: (N,) int64, the same number for pairs of the same two units.
    - ``is_same``: (N,) bool.
    - ``keep``: (2, U) float64, the share of the impostor and of the genuine pairs that is left
      without the unit.
    """

    basis: str
    count: int
    of_a: np.ndarray
    of_b: np.ndarray
    meeting: np.ndarray
    is_same: np.ndarray
    keep: np.ndarray


def find_units(
    is_same: np.ndarray, *, people: Names | None = None, photographs: Rows | None = None
) -> Units:
    """Return the people of N pairs by name, else by photograph, else the pairs themselves.

    ``people``: the N names of either side. ``photographs``: the (N,) rows of the images of either
    side; those that genuine pairs join are of one person. Pairs are the units where neither tells
    at least five people, where no photograph is in two pairs, and where all genuine or all impostor
    pairs depend on one person.

    Raises ValueError for names or rows that are not one a pair.
    """
    count = len(is_same)
    given = people if people is not None else photographs
    if given is not None and (len(given[0]) != count or len(given[1]) != count):
        what = "names" if people is not None else "photographs"
        raise ValueError(
            f"{len(given[0])} and {len(given[1])} {what} for {count} pairs; give one for either "
            "side of every pair."
        )
    pairs = _units(PAIRS, np.arange(count), np.arange(count), is_same)
    if people is not None:
        found = _units(PEOPLE, np.asarray(people[0]), np.asarray(people[1]), is_same)
    elif photographs is not None:
        found = _units(PHOTOGRAPHS, *_joined(*photographs, is_same), is_same)
    else:
        return pairs
    # No photograph is in two pairs.
    unshared = found.basis == PHOTOGRAPHS and found.count == count + int((~is_same).sum())
    if unshared or found.count < FEWEST_PEOPLE or (found.keep == 0).any():
        return pairs
    return found


def jackknife_variance(
    units: Units, influence: np.ndarray, *, taken_back: float = 0.5
) -> tuple[float, float]:
    """Return the variance of a rate and its degrees of freedom.

    ``influence``: (N,) float64 e, what each pair adds to the rate's deviation from its mean; each
    kind's sum is 0. Leaving out unit u moves the rate by m(u): the sum of its pairs' e, divided,
    kind by kind, by the share of pairs left. With s(u, v) the sum of e over the pairs of two units,
    the variance is

        Σ m(u)² - c Σ s(u, v)², at least Σ e².

    c = ``taken_back``: 0 is the jackknife, 1 the dyadic-robust variance. The factor (U - 1) / U of
    other jackknives is left out, as in Efron and Stein's bound.

    Degrees of freedom are Satterthwaite's, with the variance's own variance from the moves:
    2 (Σ m²)² / (Σ m⁴ - (Σ m²)² / U), few where few people decide, U - 1 at most.
    """
    two = np.flatnonzero(units.of_a != units.of_b)
    moves = np.zeros(units.count)
    for kind, keep in zip((False, True), units.keep, strict=True):
        of_kind = np.where(units.is_same == kind, influence, 0.0)
        sums = np.bincount(units.of_a, of_kind, units.count)
        sums += np.bincount(units.of_b[two], of_kind[two], units.count)
        # Pairs are units of their own where a kind has a single pair: nothing is left without it.
        moves += sums / np.maximum(keep, 1 / units.count)
    squares = np.square(moves)
    total = float(squares.sum())
    twice = np.square(np.bincount(units.meeting[two], influence[two])).sum()
    variance = max(total - taken_back * float(twice), float(np.square(influence).sum()))
    spread = float(np.square(squares).sum()) - total**2 / units.count
    most = units.count - 1.0
    return variance, min(most, 2 * total**2 / spread) if spread > 0 else most


def _units(basis: str, a: np.ndarray, b: np.ndarray, is_same: np.ndarray) -> Units:
    known, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    of_a, of_b = codes[: len(a)], codes[len(a) :]
    keep = np.empty((2, len(known)))
    for row, kind in enumerate((False, True)):
        ours = is_same == kind
        held = np.bincount(of_a[ours], minlength=len(known))
        held += np.bincount(of_b[ours & (of_a != of_b)], minlength=len(known))
        keep[row] = 1 - held / max(1, ours.sum())
    two = np.minimum(of_a, of_b) * len(known) + np.maximum(of_a, of_b)
    meeting = np.unique(two, return_inverse=True)[1]
    return Units(basis, len(known), of_a, of_b, meeting, is_same, keep)


def _joined(a: np.ndarray, b: np.ndarray, is_same: np.ndarray) -> Rows:
    """Return the group of either photograph: those that genuine pairs join, directly or not."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = int(max(a.max(), b.max())) + 1
    links = coo_array((np.ones(int(is_same.sum())), (a[is_same], b[is_same])), shape=(size, size))
    _, group = connected_components(links, directed=False)
    return group[a], group[b]
