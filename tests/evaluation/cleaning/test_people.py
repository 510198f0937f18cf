"""Likeness against loops in float64, straight from its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from arcface_plus.evaluation.cleaning.people import People, limit_of_bulk

# Three people; photographs 0 and 1 are copies, and so are 2 (of person 0) and 6 (of person 1).
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
GROUPS = np.array([0, 0, 2, 3, 4, 5, 2, 7, 8, 9, 10])


@pytest.fixture
def unit() -> np.ndarray:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((3, 5))[LABELS] + 0.4 * rng.standard_normal((len(LABELS), 5))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def voices(person: int, votes: np.ndarray, but: int | None = None) -> list[list[int]]:
    """Return the groups of copies that speak for ``person``, without those of row ``but``."""
    rows = [r for r in range(len(LABELS)) if LABELS[r] == person and votes[r]]
    groups = {GROUPS[r]: [k for k in rows if GROUPS[k] == GROUPS[r]] for r in rows}
    return [rows for group, rows in groups.items() if but is None or group != GROUPS[but]]


def naive(unit: np.ndarray, votes: np.ndarray):
    """Return likeness (N, P), that of people (P, P), stranger and typical, by loops."""
    x = unit.astype(np.float64)
    people = range(3)
    spoken = {p: [np.mean(x[g], axis=0) for g in voices(p, votes)] for p in people}
    own = {
        p: np.mean([a @ b for a, b in itertools.permutations(v, 2)])
        for p, v in spoken.items()
        if len(v) > 1
    }
    means = {p: np.mean(v, axis=0) for p, v in spoken.items()}
    stranger = np.mean([means[p] @ means[q] for p, q in itertools.permutations(people, 2)])
    typical = float(np.median(list(own.values())))
    scale = {}
    for p in people:
        n = len(spoken[p])
        pairs = n * (n - 1) / 2
        drawn = (own.get(p, 0) - stranger) * pairs + (typical - stranger) * 4
        scale[p] = max(drawn / (pairs + 4), 0.5 * (typical - stranger))
    likeness = np.full((len(x), 3), -np.inf)
    for r, p in itertools.product(range(len(x)), people):
        if groups := voices(p, votes, but=r):
            cosine = np.mean([x[r] @ np.mean(x[g], axis=0) for g in groups])
            likeness[r, p] = (cosine - stranger) / scale[p]
    between = np.full((3, 3), -np.inf)
    for p, q in itertools.permutations(people, 2):
        between[p, q] = (means[p] @ means[q] - stranger) / np.sqrt(scale[p] * scale[q])
    return likeness, between, stranger, typical


@pytest.mark.parametrize("silent", [[], [4], [7, 8, 9]])
def test_likeness_is_what_loops_compute(unit, silent) -> None:
    votes = np.ones(len(LABELS), dtype=bool)
    votes[silent] = False
    people = People(unit, LABELS, GROUPS, votes)
    likeness, between, stranger, typical = naive(unit, votes)
    assert (people.stranger, people.typical) == pytest.approx((stranger, typical), abs=1e-5)
    ((part, found),) = people.likeness()
    assert part == slice(0, 2**24 // 3)
    np.testing.assert_allclose(found, likeness, atol=1e-4)
    ((_, found),) = people.likeness_of_people()
    np.testing.assert_allclose(found, between, atol=1e-4)


def test_blocks_of_rows_make_the_whole(unit, monkeypatch) -> None:
    people = People(unit, LABELS, GROUPS)
    ((_, whole),) = people.likeness()
    ((_, between),) = people.likeness_of_people()
    monkeypatch.setattr("arcface_plus.evaluation.cleaning.people._ENTRIES", 6)
    parts = list(people.likeness())
    assert len(parts) == 6
    np.testing.assert_allclose(np.concatenate([rows for _, rows in parts]), whole, atol=1e-6)
    parts = list(people.likeness_of_people())
    assert len(parts) == 2
    np.testing.assert_allclose(np.concatenate([rows for _, rows in parts]), between, atol=1e-6)


def test_halves_of_one_person_are_alike_however_few(crowd) -> None:
    """What a mean of few photographs loses in length is made up for."""
    faces = crowd(40, 24)
    labels = faces.labels.copy()
    rows = np.flatnonzero(labels == 3)
    labels[rows[:3]] = 40  # three photographs of twenty-four
    people = People(faces.unit, labels, np.arange(len(labels)))
    like = np.concatenate([part for _, part in people.likeness_of_people()])
    assert like[3].argmax() == 40
    assert like[3, 40] == pytest.approx(1, abs=0.15)
    assert np.delete(like[3], [3, 40]).max() < 0.5


def test_a_model_that_tells_nobody_apart_is_refused(crowd) -> None:
    faces = crowd(20, 5)
    mixed = np.random.default_rng(0).permutation(faces.labels)
    with pytest.raises(ValueError, match="does not tell these people apart"):
        People(faces.unit, mixed, np.arange(len(mixed)))


def test_photographs_that_are_all_alone_or_copies_are_refused(crowd) -> None:
    faces = crowd(20, 1)
    with pytest.raises(ValueError, match="two photographs"):
        People(faces.unit, faces.labels, np.arange(20))
    twice = np.concatenate([faces.unit, faces.unit])
    with pytest.raises(ValueError, match="two photographs"):
        People(twice, np.tile(faces.labels, 2), np.tile(np.arange(20), 2))


def test_bulk_is_not_moved_by_what_stands_out() -> None:
    values = np.concatenate([np.linspace(0.4, 0.6, 41), [3.0, 4.0]])
    # Median 0.505, median absolute deviation 0.05 or next to it.
    assert limit_of_bulk(values) == pytest.approx(0.505 + 3.5 * 0.055 / 0.6745, abs=0.03)
    assert limit_of_bulk(np.array([])) == np.inf
