from __future__ import annotations

import itertools

import numpy as np
import pytest

from arcface_plus.evaluation.pairs.dependence import (
    PAIRS,
    PEOPLE,
    PHOTOGRAPHS,
    Units,
    find_units,
    jackknife_variance,
)
from arcface_plus.evaluation.pairs.intervals import influences


def random_pairs(
    seed: int, people: int = 12, each: int = 60
) -> tuple[np.ndarray, list[str], list[str]]:
    rng = np.random.default_rng(seed)
    genuine = rng.integers(people, size=each)
    a = rng.integers(people, size=each)
    b = (a + rng.integers(1, people, size=each)) % people
    names = [[f"p{p}" for p in (*genuine, *side)] for side in (a, b)]
    return np.repeat([True, False], each), names[0], names[1]


def named(seed: int = 0, **sizes: int) -> tuple[Units, np.ndarray, list[str], list[str]]:
    is_same, a, b = random_pairs(seed, **sizes)
    return find_units(is_same, people=(a, b)), is_same, a, b


def centred(values: np.ndarray, is_same: np.ndarray) -> np.ndarray:
    """The mean of ``values`` as influences, kinds weighing one half each."""
    return influences(values, np.full(len(values), 1 / len(values)), is_same)


def rate_without(values: np.ndarray, is_same: np.ndarray, left: np.ndarray) -> float:
    return float(np.mean([values[left & kind].mean() for kind in (is_same, ~is_same)]))


def test_people_are_left_out_one_at_a_time() -> None:
    """The moves are those of the rate itself, computed anew without each person's pairs."""
    units, is_same, a, b = named()
    values = np.random.default_rng(1).random(len(is_same))
    whole = rate_without(values, is_same, np.ones(len(is_same), dtype=bool))
    moves = []
    for person in sorted(set(a) | set(b)):
        left = np.array([person not in pair for pair in zip(a, b, strict=True)])
        moves.append(rate_without(values, is_same, left) - whole)
    variance, freedom = jackknife_variance(units, centred(values, is_same), taken_back=0.0)
    assert variance == pytest.approx(np.square(moves).sum())
    fourth = np.power(moves, 4).sum() - np.square(moves).sum() ** 2 / len(moves)
    assert freedom == pytest.approx(min(len(moves) - 1, 2 * np.square(moves).sum() ** 2 / fourth))


def test_dyadic_variance_counts_every_two_pairs_that_meet_once() -> None:
    """With much left without each person: Σ over pairs p, q that share a person of e(p) e(q)."""
    units, is_same, a, b = named(2, people=400, each=300)
    influence = centred(np.random.default_rng(3).random(len(is_same)), is_same)
    expected = 0.0
    pairs = list(zip(a, b, strict=True))
    for p, q in itertools.product(range(len(pairs)), repeat=2):
        if set(pairs[p]) & set(pairs[q]):
            expected += influence[p] * influence[q]
    found, _ = jackknife_variance(units, influence, taken_back=1.0)
    assert found == pytest.approx(max(expected, np.square(influence).sum()), rel=0.02)


def test_independent_pairs_have_the_variance_of_a_mean() -> None:
    is_same = np.repeat([True, False], 500)
    units = find_units(is_same)
    assert (units.basis, units.count) == (PAIRS, 1000)
    influence = centred(np.random.default_rng(4).random(1000), is_same)
    variance, freedom = jackknife_variance(units, influence)
    assert variance == pytest.approx(np.square(influence).sum(), rel=0.01)
    assert 500 < freedom <= 999


def test_never_less_than_independent_pairs_would_have() -> None:
    """Two errors of a person that cancel out do not make the rate certain."""
    is_same = np.array([True] * 10 + [False] * 10)
    people = [str(p // 2) for p in range(10)] * 2
    others = [str(p // 2) for p in range(10)] + [str((p // 2 + 1) % 5) for p in range(10)]
    units = find_units(is_same, people=(people, others))
    influence = np.r_[np.tile([0.1, -0.1], 5), np.tile([0.1, -0.1], 5)]
    assert jackknife_variance(units, influence)[0] == pytest.approx(20 * 0.01)


def test_few_people_who_decide_leave_few_degrees_of_freedom() -> None:
    units, is_same, a, _ = named(5, people=100, each=200)
    noise = np.random.default_rng(6).normal(size=len(is_same))
    _, many = jackknife_variance(units, centred(noise, is_same))
    _, few = jackknife_variance(units, centred(np.array(a) == "p7", is_same))
    assert many > 30 and few < 10
    zero, most = jackknife_variance(units, np.zeros(len(is_same)))
    assert (zero, most) == (0.0, units.count - 1)


def test_photographs_tell_people_where_genuine_pairs_join_them() -> None:
    """Images 0-1-2 are one person through two pairs, 3-4 another; 5, 6, 7 stand alone."""
    is_same = np.array([True, True, True, False, False, False])
    a = np.array([0, 1, 3, 0, 5, 7])
    b = np.array([1, 2, 4, 5, 6, 3])
    units = find_units(is_same, photographs=(a, b))
    assert (units.basis, units.count) == (PHOTOGRAPHS, 5)
    assert units.of_a[0] == units.of_b[1] == units.of_a[3]
    assert units.of_b[3] == units.of_a[4] != units.of_b[4]
    assert units.of_b[5] == units.of_a[2]
    assert (units.of_a[is_same] == units.of_b[is_same]).all()


def test_photographs_of_named_people_find_the_same_people() -> None:
    """Where every two photographs of a person make a genuine pair, names add nothing."""
    rows = [(p * 3 + i, p * 3 + j, True) for p in range(6) for i, j in ((0, 1), (1, 2), (0, 2))]
    rows += [(p * 3 + i, (p * 3 + 4 + i) % 18, False) for p in range(6) for i in range(3)]
    a, b, is_same = (np.array(column) for column in zip(*rows, strict=True))
    by_names = find_units(is_same, people=([str(x // 3) for x in a], [str(x // 3) for x in b]))
    by_images = find_units(is_same, photographs=(a, b))
    assert by_names.basis == PEOPLE and by_names.count == by_images.count == 6
    influence = centred(np.random.default_rng(0).random(len(is_same)), is_same)
    assert jackknife_variance(by_names, influence) == pytest.approx(
        jackknife_variance(by_images, influence)
    )


def test_pairs_are_the_units_where_people_cannot_be() -> None:
    is_same = np.repeat([True, False], 10)
    alone = np.arange(40).reshape(20, 2)
    assert find_units(is_same, photographs=(alone[:, 0], alone[:, 1])).basis == PAIRS
    few = ["a" if same else "b" for same in is_same]
    assert find_units(is_same, people=(few, few)).basis == PAIRS, "fewer than five people"
    gallery = ["x"] * 20
    many = [str(p) for p in range(20)]
    assert find_units(is_same, people=(gallery, many)).basis == PAIRS, "one is in every pair"


def test_names_that_do_not_fit_are_refused() -> None:
    is_same = np.array([True, False] * 2)
    with pytest.raises(ValueError, match="3 and 2 names for 4 pairs"):
        find_units(is_same, people=(["a"] * 3, ["b"] * 2))
    with pytest.raises(ValueError, match="1 and 1 photographs for 4 pairs"):
        find_units(is_same, photographs=(np.zeros(1, dtype=int), np.zeros(1, dtype=int)))
