"""False non-matches and false matches of groups of people at one threshold.

Shapes: N pairs, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from arcface_plus.evaluation.benchmark.columns import Grouping
from arcface_plus.evaluation.benchmark.group_test import adjusted_p, cell_counts
from arcface_plus.evaluation.pairs.comparison import holm
from arcface_plus.evaluation.pairs.dependence import find_units, jackknife_variance
from arcface_plus.evaluation.pairs.intervals import rate_interval
from arcface_plus.evaluation.pairs.roc import Record


@dataclass(frozen=True)
class GroupRate(Record):
    """Hold the error rate of the genuine pairs of a group, or the impostor pairs of two.

    - ``interval``: 95 %, over ``units`` of ``basis``, the threshold taken as given.
    - ``p``: of "differs from all", adjusted for the number of cells.
    """

    groups: tuple[str, ...]
    errors: int
    pairs: int
    rate: float
    interval: tuple[float, float]
    basis: str
    units: int
    p: float


@dataclass(frozen=True)
class GroupErrors(Record):
    """Hold the error rates of the groups of a column at a threshold.

    - ``threshold``: squared L2; pairs below are accepted. ``threshold_of``: how it was chosen.
    - ``fnmr``: a rate a group; ``fmr``: a rate a pair of groups, that of a group with itself
      included. Cells without a pair are left out.
    - ``fnmr_p``, ``fmr_p``: of "some group differs", ``adjusted``: the same after Holm's correction
      for both rates and all columns.
    - ``left_out``: pairs with a person whose group is not known.
    """

    column: str
    threshold: float
    threshold_of: str
    fnmr: tuple[GroupRate, ...]
    fmr: tuple[GroupRate, ...]
    fnmr_p: float
    fmr_p: float
    adjusted: tuple[float, float]
    left_out: int

    @property
    def within(self) -> tuple[GroupRate, ...]:
        """The false-match rates of impostor pairs of one group."""
        return tuple(each for each in self.fmr if len(set(each.groups)) == 1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types that JSON can hold; ratios are None where the best has no error."""
        return super().to_dict() | {
            "cosine_threshold": 1 - self.threshold / 2,
            "fnmr": [each.to_dict() for each in self.fnmr],
            "fmr": [each.to_dict() for each in self.fmr],
            "fnmr_worst_over_best": worst_over_best(self.fnmr),
            "fmr_worst_over_best": worst_over_best(self.fmr),
            "fmr_within_worst_over_best": worst_over_best(self.within),
        }


def group_errors(
    groupings: list[Grouping],
    distances: np.ndarray,
    is_same: np.ndarray,
    threshold: float,
    threshold_of: str,
) -> list[GroupErrors]:
    """Return the error rates of the groups of each column.

    ``distances`` (N,) squared L2, ``is_same`` (N,) bool. Raises ValueError for a column of which
    no genuine or no impostor pair has known groups.
    """
    wrong = (distances < threshold) != is_same
    found = [_of_column(each, is_same, wrong, threshold, threshold_of) for each in groupings]
    adjusted = holm([p for each in found for p in (each.fnmr_p, each.fmr_p)])
    both = zip(adjusted[::2], adjusted[1::2], strict=True)
    return [replace(each, adjusted=ps) for each, ps in zip(found, both, strict=True)]


def worst_over_best(rates: tuple[GroupRate, ...]) -> float | None:
    """Return the ratio of the largest to the smallest rate; None where that is 0 or there is one.

    It does not know how uncertain either is: see their intervals.
    """
    if len(rates) < 2 or not (best := min(each.rate for each in rates)):
        return None
    return max(each.rate for each in rates) / best


def _of_column(
    grouping: Grouping,
    is_same: np.ndarray,
    wrong: np.ndarray,
    threshold: float,
    threshold_of: str,
) -> GroupErrors:
    a, b = grouping.sides
    known = (a >= 0) & (b >= 0)
    rates, smallest = [], []
    for kind, what in ((True, "genuine"), (False, "impostor")):
        chosen = np.flatnonzero(known & (is_same == kind))
        if not len(chosen):
            raise ValueError(
                f"no {what} pair has people whose {grouping.name!r} is known; fill in the column."
            )
        p = adjusted_p(grouping, chosen, wrong)
        rates.append(_cells(grouping, chosen, is_same, wrong, p))
        smallest.append(float(p.min()))
    return GroupErrors(
        column=grouping.name,
        threshold=threshold,
        threshold_of=threshold_of,
        fnmr=tuple(replace(each, groups=each.groups[:1]) for each in rates[0]),
        fmr=rates[1],
        fnmr_p=smallest[0],
        fmr_p=smallest[1],
        adjusted=(smallest[0], smallest[1]),
        left_out=int((~known).sum()),
    )


def _cells(
    grouping: Grouping,
    chosen: np.ndarray,
    is_same: np.ndarray,
    wrong: np.ndarray,
    p: np.ndarray,
) -> tuple[GroupRate, ...]:
    a, b = (side[chosen] for side in grouping.sides)
    errors, pairs = cell_counts(grouping, grouping.of_person, chosen, wrong)
    found = []
    for low, high in combinations_with_replacement(range(len(grouping.groups)), 2):
        cell = low * len(grouping.groups) + high
        if not pairs[cell]:
            continue
        rows = chosen[(np.minimum(a, b) == low) & (np.maximum(a, b) == high)]
        names = tuple([side[row] for row in rows.tolist()] for side in grouping.people)
        interval, basis, units = fixed_rate_interval(wrong[rows], is_same[rows], names)
        found.append(
            GroupRate(
                groups=(grouping.groups[low], grouping.groups[high]),
                errors=int(errors[cell]),
                pairs=int(pairs[cell]),
                rate=float(errors[cell] / pairs[cell]),
                interval=interval,
                basis=basis,
                units=units,
                p=float(p[cell]),
            )
        )
    return tuple(found)


def fixed_rate_interval(
    wrong: np.ndarray, is_same: np.ndarray, people: Any
) -> tuple[tuple[float, float], str, int]:
    """Return the 95 % interval of the share of (M,) ``wrong`` pairs of one kind, basis and units.

    ``people``: the M names of either side, or None. The threshold counts as given.
    """
    units = find_units(is_same, people=people)
    rate = float(wrong.mean())
    variance = jackknife_variance(units, (wrong - rate) / len(wrong))
    return rate_interval(rate, *variance, units), units.basis, units.count
