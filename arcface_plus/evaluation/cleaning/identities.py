"""Folders that are one person, and folders that are two.

Shapes: N photographs, P people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arcface_plus.evaluation.cleaning.people import People, limit_of_bulk

_FEWEST = 2  # photographs, copies not counted, of either half of a folder that is two people
_TIGHT = 0.5  # likeness within either half: two strays are no person
_ITERATIONS = 20


def nearest_people(people: People) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest other person (P,) of each and the likeness (P,) to it."""
    near = np.empty(people.count, dtype=np.int64)
    likeness = np.empty(people.count)
    for part, like in people.likeness_of_people():
        near[part] = like.argmax(axis=1)
        likeness[part] = like.max(axis=1)
    return near, likeness


def one_person(people: People, *, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the other label of everyone who likely has two (P,), −1 for the others, and the
    likeness (P,) to the nearest person.

    The two are each other's nearest, and their likeness is at least ``threshold`` and stands out
    of those of all people to their nearest.
    """
    near, likeness = nearest_people(people)
    known = np.isfinite(likeness)
    limit = max(threshold, limit_of_bulk(likeness[known]))
    mutual = (near[near] == np.arange(people.count)) & (likeness >= limit)
    return np.where(mutual, near, -1), likeness


@dataclass(frozen=True)
class TwoPeople:
    """Hold a folder that is likely two people: ``person``, the ``rows`` of the smaller half, and
    the ``score``, 1 less the likeness of the halves to each other.
    """

    person: int
    rows: np.ndarray
    score: float


def two_people(people: People, usable: np.ndarray, *, threshold: float) -> list[TwoPeople]:
    """Return the folders that are likely two people, the surest first.

    ``usable`` (N,) bool: photographs that count; not those suspected of a wrong label. A folder is
    cut in two by 2-means, where copies share one vote. It is two people if both halves have two
    photographs at least and are tight, and the score is at least ``threshold``: they are as far
    apart as different people.
    """
    order = np.argsort(people.labels, kind="stable")
    folders = np.split(order, np.flatnonzero(np.diff(people.labels[order])) + 1)
    found = []
    for rows in folders:
        rows = rows[usable[rows]]
        if people.weights[rows].sum() < 2 * _FEWEST:
            continue
        side = _two_means(people.unit[rows], people.weights[rows])
        likeness = _likeness_of_halves(people, rows[side], rows[~side])
        if likeness is not None and 1 - likeness >= threshold:
            smaller = (
                side
                if people.weights[rows[side]].sum() * 2 <= people.weights[rows].sum()
                else ~side
            )
            found.append(TwoPeople(int(people.labels[rows[0]]), rows[smaller], 1 - likeness))
    return sorted(found, key=lambda each: -each.score)


def _two_means(unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return which rows belong to the first of two clusters, from a start along the widest axis."""
    centred = (unit - np.average(unit, axis=0, weights=weights)) * np.sqrt(weights)[:, None]
    side = np.linalg.svd(centred, full_matrices=False)[0][:, 0] > 0
    for _ in range(_ITERATIONS):
        if weights[side].sum() == 0 or weights[~side].sum() == 0:
            break
        means = [np.average(unit[part], axis=0, weights=weights[part]) for part in (side, ~side)]
        first, second = (mean / np.linalg.norm(mean) for mean in means)
        before, side = side, unit @ (first - second) > 0
        if np.array_equal(before, side):
            break
    return side


def _likeness_of_halves(people: People, first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the likeness of two parts of a folder to each other; None where one is not tight."""
    scale, sums, counts = people.typical - people.stranger, [], []
    for rows in (first, second):
        weights = people.weights[rows]
        n = weights.sum()
        if n < _FEWEST:
            return None
        total = weights @ people.unit[rows]
        _, vote = np.unique(people.groups[rows], return_inverse=True)
        own = np.zeros((int(vote.max()) + 1, people.unit.shape[1]))
        np.add.at(own, vote, weights[:, None] * people.unit[rows])
        within = (total @ total - np.square(own).sum()) / (n * (n - 1))
        if within - people.stranger < _TIGHT * scale:
            return None
        sums.append(total)
        counts.append(n)
    between = float(sums[0] @ sums[1] / (counts[0] * counts[1]))
    return (between - people.stranger) / scale
