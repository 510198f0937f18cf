from __future__ import annotations

import json

import numpy as np
import pytest

from arcface_plus.evaluation.pairs.distribution import (
    Cosines,
    crossing,
    describe_cosines,
    distance_distribution,
    pair_cosines,
    people_cosines,
)
from arcface_plus.evaluation.pairs.roc import equal_error_rate, tar_at_far


def drawn(positives: int, negatives: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0.6, 0.15, positives).clip(-1, 1), rng.normal(0, 0.1, negatives).clip(-1, 1)


def test_numbers_are_those_of_their_definitions() -> None:
    positive, negative = drawn(2000, 20_000)
    found = describe_cosines(positive, negative)
    assert (found.positives, found.negatives, found.coarse, found.needs) == (2000, 20_000, (), {})
    assert found.boundary == np.sort(positive)[20] and found.tail == np.sort(negative)[-21]
    assert (positive < found.boundary).mean() == 0.01 and (negative > found.tail).mean() == 0.001
    assert found.above_boundary == (negative >= found.boundary).mean() > 0
    assert found.negative_std == np.std(negative) and found.positive_mean == positive.mean()
    assert found.boundary == pytest.approx(0.6 - 2.326 * 0.15, abs=0.03)
    assert found.tail == pytest.approx(3.09 * 0.1, abs=0.02)
    assert json.loads(json.dumps(found.to_dict()))["boundary_share"] == 0.01


def test_tail_is_the_threshold_of_tar_at_far() -> None:
    positive, negative = drawn(300, 5000)
    threshold = tar_at_far(1 - positive, 1 - negative, [1e-3]).tar_thresholds[1e-3]
    assert describe_cosines(positive, negative).tail == pytest.approx(1 - threshold)


@pytest.mark.parametrize(
    ("positives", "negatives", "needs", "coarse"),
    [
        (99, 999, {"boundary": 100, "tail": 1000}, ()),
        (100, 999, {"tail": 1000}, ("boundary",)),
        (999, 9999, {}, ("boundary", "tail")),
        (1000, 10_000, {}, ()),
    ],
)
def test_quantiles_that_too_few_cosines_show_are_refused(
    positives: int, negatives: int, needs: dict, coarse: tuple
) -> None:
    found = describe_cosines(*drawn(positives, negatives))
    assert found.needs == needs and found.coarse == coarse
    assert (found.boundary is None) == (found.above_boundary is None) == ("boundary" in needs)
    assert (found.tail is None) == ("tail" in needs)
    assert found.negative_std > 0


def naive_crossing(positive: np.ndarray, negative: np.ndarray) -> float:
    """The middle of where the shares are equal, on a grid finer than the cosines."""
    grid = np.arange(-1.0005, 1.002, 0.001)  # between the cosines, which are multiples of 0.01
    gap = np.array([(positive < c).mean() - (negative >= c).mean() for c in grid])
    even = np.abs(gap) < 1e-12
    if even.any():
        return float((grid[even].min() - 0.0005 + grid[even].max() + 0.0005) / 2)
    return float(grid[gap < 0].max() + 0.0005)


@pytest.mark.parametrize("seed", range(20))
def test_crossing_is_that_of_a_grid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.integers(-20, 90, rng.integers(1, 30)) / 100  # many ties
    negative = rng.integers(-60, 40, rng.integers(1, 30)) / 100
    at = crossing(positive, negative)
    assert at == pytest.approx(naive_crossing(positive, negative), abs=1e-9)
    below, above = (positive < at).mean(), (negative >= at).mean()
    eer = equal_error_rate(-positive, -negative)
    tie = max((positive == at).mean(), (negative == at).mean())
    assert min(below, above) - tie <= eer <= max(below, above) + tie


def test_crossing_of_what_does_not_overlap_is_the_middle_of_the_gap() -> None:
    found = describe_cosines(np.array([0.5, 0.9]), np.array([-0.2, 0.1]))
    assert found.crossing == pytest.approx(0.3) and found.eer == 0
    assert crossing(np.array([-0.5]), np.array([0.5])) == pytest.approx(0)  # all wrong
    assert crossing(np.array([0.25]), np.array([0.25])) == 0.25


@pytest.mark.parametrize(
    ("positive", "match"),
    [([], "at least one"), ([[0.1]], "at least one"), ([np.nan], "finite"), ([1.1], "1.1")],
)
def test_what_is_no_cosine_is_refused(positive: list, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        describe_cosines(np.array(positive), np.array([0.0]))
    with pytest.raises(ValueError, match="negative"):
        describe_cosines(np.array([0.0]), np.array(positive))


def test_pairs_of_squared_distances() -> None:
    found = pair_cosines(np.array([0.0, 2.0, 4.0]), np.array([True, False, False]))
    assert found.positive.tolist() == [1.0] and found.negative.tolist() == [0.0, -1.0]


def people(seed: int = 0, dim: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of any length, in no order; one person has a single image."""
    rng = np.random.default_rng(seed)
    names = np.array(["c", "a", "b", "a", "d", "c", "a", "b", "b", "b"])
    return rng.normal(size=(len(names), dim)) * rng.uniform(0.1, 9, (len(names), 1)), names


def naive(embeddings: np.ndarray, names: np.ndarray, against: str) -> tuple[list, list]:
    unit = [row / np.linalg.norm(row) for row in embeddings]
    kinds: tuple[list, list] = ([], [])
    for i, name in enumerate(names):
        if against == "images":
            for j in range(i):
                kinds[int(name != names[j])].append(unit[i] @ unit[j])
            continue
        for other in sorted(set(names)):
            rows = [unit[j] for j in range(len(names)) if names[j] == other and j != i]
            if rows:
                centre = np.sum(rows, axis=0)
                kinds[int(name != other)].append(unit[i] @ centre / np.linalg.norm(centre))
    return kinds


@pytest.mark.parametrize("against", ["images", "centres"])
def test_cosines_of_people_are_those_of_loops(against) -> None:
    embeddings, names = people()
    found = people_cosines(embeddings, names, against=against)
    positive, negative = naive(embeddings, names, against)
    np.testing.assert_allclose(np.sort(found.positive), np.sort(positive), atol=1e-12)
    np.testing.assert_allclose(np.sort(found.negative), np.sort(negative), atol=1e-12)
    assert (found.positives_in_all, found.negatives_in_all) == (len(positive), len(negative))


@pytest.mark.parametrize("against", ["images", "centres"])
def test_a_sample_is_even_over_all_and_depends_on_the_seed_alone(against) -> None:
    rng = np.random.default_rng(3)
    names = np.repeat(np.arange(40), rng.integers(1, 30, 40))
    embeddings = rng.normal(size=(40, 16))[names] + rng.normal(size=(len(names), 16))
    whole = people_cosines(embeddings, names, against=against)
    part, again = (
        people_cosines(embeddings, names, against=against, at_most=2000, seed=5) for _ in range(2)
    )
    assert len(part.negative) == 2000 < part.negatives_in_all == len(whole.negative)
    assert part.negatives_in_all == whole.negatives_in_all
    for kind in ("positive", "negative"):
        some, all_of = getattr(part, kind), getattr(whole, kind)
        assert np.array_equal(some, getattr(again, kind))
        assert set(np.round(some, 12)) <= set(np.round(all_of, 12))
        error = all_of.std() / np.sqrt(len(some))
        assert abs(some.mean() - all_of.mean()) < 4 * error
    other = people_cosines(embeddings, names, against=against, at_most=2000, seed=6)
    assert not np.array_equal(other.negative, part.negative)


@pytest.mark.parametrize(
    ("names", "more", "match"),
    [
        (["a", "b", "c"], {}, "3 images of 3 people, at most 1 of one"),
        (["a", "a", "a"], {}, "of 1 people"),
        (["a", "a", "b"], {"against": "center"}, "images or centres"),
        (["a", "a", "b"], {"at_most": 0}, "at least 1"),
    ],
)
def test_what_makes_no_view_is_refused(names: list, more: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        people_cosines(np.eye(3), np.array(names), **more)


def test_embeddings_without_direction_are_refused() -> None:
    embeddings = np.eye(3)
    embeddings[1] = 0
    with pytest.raises(ValueError, match="is zero"):
        people_cosines(embeddings, np.array(["a", "a", "b"]))


def test_cosines_hold_what_they_were_drawn_from() -> None:
    found = people_cosines(np.eye(3), np.array(["a", "a", "b"]), at_most=1)
    assert isinstance(found, Cosines) and found.negatives_in_all == 2 and len(found.negative) == 1


def test_distances_give_the_numbers_of_their_cosines() -> None:
    positive, negative = drawn(300, 400)
    is_same = np.arange(700) % 7 < 3
    distances = np.empty(700)
    distances[is_same], distances[~is_same] = 2 - 2 * positive, 2 - 2 * negative
    found, expected = (
        distance_distribution(distances, is_same),
        describe_cosines(positive, negative),
    )
    assert found.boundary == pytest.approx(expected.boundary)
    assert found.needs == expected.needs == {"tail": 1000}
    assert found.negative_std == pytest.approx(expected.negative_std)
