"""Photographs that are likely of another person of the set than their label says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arcface_plus.evaluation.cleaning.people import People, limit_of_bulk

_NEAR = 2.0  # deviations by which a suspect is nearer to another person than photographs are
_ROUNDS = 4


@dataclass(frozen=True)
class LabelScores:
    """Hold of N photographs which are suspects, and the likeness to either person.

    ``suspect`` (N,) bool; ``score`` (N,): likeness to the nearest other person less ``own`` (N,),
    that to their own one; ``other`` (N,): that nearest other person.
    """

    suspect: np.ndarray
    score: np.ndarray
    own: np.ndarray
    other: np.ndarray


def wrong_labels(
    unit: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    same_person: np.ndarray,
    *,
    threshold: float,
) -> LabelScores:
    """Return which photographs are much nearer to another person than to their own.

    ``unit``, ``labels``, ``groups`` as for ``People``; ``same_person`` (P,): the other label of a
    person who has two, else −1: it does not count as another one. A suspect's score is at least
    ``threshold`` and stands out of those of all photographs, and it is nearer to the other person
    than photographs usually are to one: to be far from its own person does not make it another's.
    Suspects do not speak for a person in the next round; it ends where they stay the same, after
    four at most. Photographs that are alone with their label are no suspects.
    """
    votes = np.ones(len(unit), dtype=bool)
    for _ in range(_ROUNDS):
        scores = _score(People(unit, labels, groups, votes), labels, same_person, threshold)
        if np.array_equal(scores.suspect, ~votes):
            break
        votes = ~scores.suspect
    return scores


def _score(
    people: People, labels: np.ndarray, same_person: np.ndarray, threshold: float
) -> LabelScores:
    own, nearest = np.empty(len(labels)), np.empty(len(labels))
    other = np.empty(len(labels), dtype=np.int64)
    for part, likeness in people.likeness():
        rows, label = np.arange(len(likeness)), labels[part]
        own[part] = likeness[rows, label]
        likeness[rows, label] = -np.inf
        twice = same_person[label] >= 0
        likeness[rows[twice], same_person[label][twice]] = -np.inf
        other[part] = likeness.argmax(axis=1)
        nearest[part] = likeness[rows, other[part]]
    comparable = np.isfinite(own) & np.isfinite(nearest)
    score = np.where(comparable, nearest - np.where(comparable, own, 0), -np.inf)
    limit = max(threshold, limit_of_bulk(score[comparable]))
    near = nearest >= limit_of_bulk(nearest[comparable], _NEAR)
    return LabelScores((score >= limit) & near, score, own, other)
