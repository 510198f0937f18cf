"""Does some group differ? A test in which people, not pairs, are exchanged.

The hypothesis: which group a person is in has nothing to do with errors. Then the groups' names can
be dealt out to the people anew, and what we observe is one deal like any other. That holds whatever
pairs share people, and however people differ. Each cell (a group, or a pair of groups) is measured
by its binomial deviance from the rate of all,

    2 [k ln(k / (n r)) + (n - k) ln((n - k) / (n (1 - r)))],  k errors in n pairs, r of all,

and the largest over cells is compared with the largest in each deal (the maximum statistic of
Westfall and Young, Resampling-Based Multiple Testing, 1993): the probability that any cell of a
family is called different by chance is at most the level. The deviance is used because a single
error in a cell of three pairs would dominate a squared z-score.
"""

from __future__ import annotations

import numpy as np

from arcface_plus.evaluation.benchmark.columns import Grouping

DEALS = 999


def deviances(errors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the deviance of each cell from the rate of all cells, for (C,) counts; 0 if empty."""
    from scipy.special import xlogy

    rate = errors.sum() / max(1, pairs.sum())
    if not 0 < rate < 1:
        return np.zeros(len(pairs))
    right, filled = pairs - errors, np.maximum(pairs, 1)
    found = xlogy(errors, errors / (filled * rate)) + xlogy(right, right / (filled * (1 - rate)))
    return np.asarray(2 * found)


def cell_counts(
    grouping: Grouping, of_person: np.ndarray, chosen: np.ndarray, wrong: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return errors and pairs of each unordered pair of groups (a, b), a <= b, at a · G + b.

    ``of_person``: (P,) the groups of the people. ``chosen``: rows of the pairs to count, both sides
    in a group. ``wrong``: (N,) bool.
    """
    count = len(grouping.groups)
    a, b = of_person[grouping.person_a[chosen]], of_person[grouping.person_b[chosen]]
    cells = np.minimum(a, b) * count + np.maximum(a, b)
    pairs = np.bincount(cells, minlength=count**2)
    return np.bincount(cells[wrong[chosen]], minlength=count**2), pairs


def adjusted_p(
    grouping: Grouping, chosen: np.ndarray, wrong: np.ndarray, *, deals: int = DEALS, seed: int = 0
) -> np.ndarray:
    """Return the p of each cell of ``cell_counts``, adjusted for there being several, (G²,).

    The smallest is the p of "some group differs". Groups are dealt to those who have one.
    """
    observed = deviances(*cell_counts(grouping, grouping.of_person, chosen, wrong))
    if not observed.any():
        return np.ones(len(observed))
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(grouping.of_person >= 0)
    dealt = grouping.of_person.copy()
    as_far = np.ones(len(observed))  # what was observed is one of the deals
    for _ in range(deals):
        dealt[known] = rng.permutation(grouping.of_person[known])
        largest = deviances(*cell_counts(grouping, dealt, chosen, wrong)).max()
        as_far += largest >= observed - 1e-9
    return np.asarray(as_far / (deals + 1))
