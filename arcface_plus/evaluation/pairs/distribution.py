"""Where the cosines of one person and of two people lie: the "distribution view".

After Fig. A1 of the supplement of Zhao et al., ACCV 2022 ("Emphasizing Closeness and Diversity
Simultaneously"). The paper does not define its "boundary value" of the positive distribution, nor
put compactness in numbers: the definitions here are ours, [R].

- Boundary: the 1 % quantile of the positives: at most 1 % of them lie below it.
- Tail: the 99.9 % quantile of the negatives: at most 0.1 % of them lie above it. It is where
  TAR at FAR 0.1 % is read. Compactness: this and the standard deviation of the negatives.
- Crossing: where as large a share of the positives lies below as of the negatives lies at or above.

A quantile is one of the cosines, by the rule for false accept rates: refused where the share is
less than one cosine, coarse where it is fewer than ten.

Shapes: N images, D dimensions, C people, P positives, Q negatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from arcface_plus.evaluation.pairs.roc import Record, equal_error_rate, tar_at_far
from arcface_plus.evaluation.pairs.verification import row_products, unit_rows

BOUNDARY_SHARE = 0.01  # of the positives, below the boundary
TAIL_SHARE = 0.001  # of the negatives, above the tail
Against = Literal["images", "centres"]
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Cosines:
    """Hold positives (P,) and negatives (Q,), and of how many each is a random sample.

    ``positives_in_all``, ``negatives_in_all`` are P and Q where nothing was left out.
    """

    positive: np.ndarray
    negative: np.ndarray
    positives_in_all: int
    negatives_in_all: int

    @cached_property
    def distribution(self) -> Distribution:
        """The numbers of both, made when first asked for; raises as ``describe_cosines``."""
        return describe_cosines(self.positive, self.negative)


@dataclass(frozen=True)
class Distribution(Record):
    """Hold the numbers of a distribution view; see the module for what they mean.

    - ``boundary``, ``tail``: None where ``needs`` says how many cosines would show it; ``coarse``
      names those that fewer than ten cosines decide.
    - ``above_boundary``: share of the negatives at or above the boundary (FAR where the boundary
      is the threshold).
    - ``positive_std``, ``negative_std``: of the population.
    """

    positives: int
    negatives: int
    positive_mean: float
    positive_std: float
    negative_mean: float
    negative_std: float
    boundary: float | None
    above_boundary: float | None
    tail: float | None
    crossing: float
    eer: float
    coarse: tuple[str, ...]
    needs: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain types that JSON can hold, with the shares that define the quantiles."""
        shares = {"boundary_share": BOUNDARY_SHARE, "tail_share": TAIL_SHARE}
        return super().to_dict() | shares


def describe_cosines(positive: np.ndarray, negative: np.ndarray) -> Distribution:
    """Return the numbers of positives (P,) and negatives (Q,), P and Q at least 1.

    Raises ValueError where one of them is empty or holds what is no cosine.
    """
    low, high = _checked(positive, "positive"), _checked(negative, "negative")
    # A positive below the boundary is to −cosine what a false accept is to the distance.
    below = tar_at_far(low, low, [BOUNDARY_SHARE])
    above = tar_at_far(-high, -high, [TAIL_SHARE])
    boundary, tail = below.tar_thresholds.get(BOUNDARY_SHARE), above.tar_thresholds.get(TAIL_SHARE)
    both = {"boundary": below, "tail": above}
    return Distribution(
        positives=len(low),
        negatives=len(high),
        positive_mean=float(low.mean()),
        positive_std=float(low.std()),
        negative_mean=float(high.mean()),
        negative_std=float(high.std()),
        boundary=boundary,
        above_boundary=None if boundary is None else float(np.mean(high >= boundary)),
        tail=None if tail is None else -tail,
        crossing=crossing(low, high),
        eer=equal_error_rate(-low, -high),
        coarse=tuple(name for name, each in both.items() if each.coarse_fars),
        needs={name: n for name, each in both.items() for n in each.refused_fars.values()},
    )


def crossing(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the cosine where shares of positives below and of negatives at or above are equal.

    The middle of that stretch, where there is one: of the gap, where nothing overlaps.
    """
    cuts = np.unique(np.concatenate([positive, negative]))
    below = np.searchsorted(np.sort(positive), cuts, side="left")
    above = len(negative) - np.searchsorted(np.sort(negative), cuts, side="left")
    # The shares' difference, in whole numbers. Constant from just above a cut up to the next one;
    # negative at the first, positive above the last.
    surplus = below * len(negative) - above * len(positive)
    last_under = cuts[np.flatnonzero(surplus < 0)[-1]]
    over = np.flatnonzero(surplus > 0)
    first_over = cuts[over[0] - 1] if over.size else cuts[-1]
    return float(last_under + (first_over - last_under) / 2)


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    wide = np.asarray(values, dtype=np.float64)
    if wide.ndim != 1 or not wide.size:
        raise ValueError(
            f"The {name} cosines must be a list of at least one, but have shape {wide.shape}: a "
            "distribution view needs pairs of one person and of two."
        )
    if not (np.abs(wide) <= 1 + _ROUNDING).all():  # NaN is refused too
        raise ValueError(
            f"The {name} cosines must lie in −1 to 1, but range from {wide.min():g} to "
            f"{wide.max():g}; give cosines of finite embeddings."
        )
    return wide


def pair_cosines(distances: np.ndarray, is_same: np.ndarray) -> Cosines:
    """Return the cosines 1 − d/2 of genuine and impostor pairs, of squared distances (N,)."""
    cosines = 1 - np.asarray(distances, dtype=np.float64) / 2
    positive, negative = cosines[is_same], cosines[~is_same]
    return Cosines(positive, negative, len(positive), len(negative))


def distance_distribution(distances: np.ndarray, is_same: np.ndarray) -> Distribution:
    """Return the numbers of genuine and impostor pairs, of squared distances (N,)."""
    return pair_cosines(distances, is_same).distribution


def people_cosines(
    embeddings: np.ndarray,
    people: np.ndarray,
    *,
    against: Against = "images",
    at_most: int = 1_000_000,
    seed: int = 0,
) -> Cosines:
    """Return cosines of embeddings (N, D), normalised here, whose images show ``people`` (N,).

    ``against="images"``: of every two images, positive where they show one person. ``centres``:
    of an image and the centre of a person, the normalised mean of their unit embeddings; positive
    with the other images of its own person, without itself, negative with everybody else's. Of more
    than ``at_most`` of a kind, that many are drawn at random, with replacement, by ``seed``.

    Raises ValueError for fewer than two people, nobody with two images, or embeddings without a
    direction.
    """
    if against not in get_args(Against):
        raise ValueError(f"against is {against!r}, but must be images or centres.")
    if at_most < 1:
        raise ValueError(f"at_most is {at_most}, but must be at least 1.")
    names, person, counts = np.unique(people, return_inverse=True, return_counts=True)
    if len(names) < 2 or counts.max() < 2:
        raise ValueError(
            f"{len(person)} images of {len(names)} people, at most {counts.max(initial=0)} of one: "
            "a distribution view needs two people, one of them with two images."
        )
    unit = unit_rows(embeddings, "embeddings[{}]".format)
    order = np.argsort(person, kind="stable")
    unit, person = unit[order], person[order]
    rng = np.random.default_rng(seed)
    compare = _against_images if against == "images" else _against_centres
    return compare(unit, person, counts, lambda total: _chosen(total, at_most, rng))


Choose = Callable[[int], np.ndarray]


def _chosen(total: int, at_most: int, rng: np.random.Generator) -> np.ndarray:
    return np.arange(total) if total <= at_most else rng.integers(total, size=at_most)


def _against_images(
    unit: np.ndarray, person: np.ndarray, counts: np.ndarray, choose: Choose
) -> Cosines:
    """Pair images sorted by person: image i with the rest of its block, and with all behind it."""
    row, end = np.arange(len(unit)), np.cumsum(counts)[person]
    kinds = ((row + 1, end - row - 1), (end, len(unit) - end))
    found, totals = [], []
    for first, partners in kinds:
        stops = np.cumsum(partners)
        totals.append(int(stops[-1]))
        number = choose(totals[-1])  # pairs are numbered by i, then by partner
        i = np.searchsorted(stops, number, side="right")
        found.append(row_products(unit, i, unit, first[i] + number - (stops[i] - partners[i])))
    return Cosines(found[0], found[1], *totals)


def _against_centres(
    unit: np.ndarray, person: np.ndarray, counts: np.ndarray, choose: Choose
) -> Cosines:
    sums = np.add.reduceat(unit, np.cumsum(counts) - counts)
    centres = unit_rows(sums, "the centre of person[{}]".format)
    others = len(counts) - 1
    number = choose(len(unit) * others)
    i, j = number // others, number % others
    negative = row_products(unit, i, centres, j + (j >= person[i]))
    mated = np.flatnonzero(counts[person] > 1)
    rest = unit_rows(sums[person[mated]] - unit[mated], "the others of image[{}]".format)
    positive = row_products(unit, mated, rest, np.arange(len(mated)))
    return Cosines(positive, negative, len(mated), len(unit) * others)
