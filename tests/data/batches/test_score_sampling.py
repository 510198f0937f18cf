"""Easy and hard images by score: bounds that give way, repeats, keyed draws."""

from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.data.batches import score_sampling as sampling
from arcface_plus.randomness import branch_augmentation_draws, branch_generator


def generator(step: int = 0) -> np.random.Generator:
    return branch_generator(1, step)


def test_members_are_each_class_and_its_images_in_order() -> None:
    labels = np.random.default_rng(0).integers(0, 9, 200)
    labels[labels == 4] = 5  # a class without images
    members = sampling.ClassMembers(labels)
    for label in range(9):
        assert members.of(label).tolist() == np.flatnonzero(labels == label).tolist()
        assert members.of(label).dtype == np.int64
    assert members._images.dtype == np.uint32


def test_others_follow_an_image_and_come_round() -> None:
    members = sampling.ClassMembers(np.array([0, 1, 0, 0, 1, 0]))
    assert members.others(2, 10) == [3, 5, 0]
    assert members.others(5, 2) == [0, 2]
    assert sampling.ClassMembers(np.array([0, 1])).others(1, 5) == []


def test_classes_are_different_and_their_rows_the_first() -> None:
    labels = np.array([7, 3, 7, 5, 3, 9])
    classes, rows = sampling.choose_classes(labels, 3, generator())
    assert len(set(classes.tolist())) == 3
    assert rows.tolist() == [labels.tolist().index(c) for c in classes]
    classes, _ = sampling.choose_classes(labels, 64, generator())
    assert sorted(classes.tolist()) == [3, 5, 7, 9], "all there are"


def test_every_class_of_the_batch_is_as_likely() -> None:
    counts = np.zeros(8, dtype=int)
    for step in range(800):
        classes, _ = sampling.choose_classes(np.arange(8), 2, generator(step))
        counts[classes] += 1
    assert counts.sum() == 1600 and counts.min() > 150 and counts.max() < 250


def test_images_between_the_bounds_are_drawn_without_repeats() -> None:
    scores = np.linspace(0, 0.99, 100, dtype=np.float32)
    easy = sampling.draw_between(scores, 0.2, 1.0, 7, generator())
    assert len(set(easy.tolist())) == 7 and (scores[easy] > 0.2).all()
    hard = sampling.draw_between(scores, 0.0, 0.2, 1, generator())
    assert 0 < scores[hard[0]] < 0.2


def test_bounds_give_way_by_a_twentieth_until_enough_lie_between() -> None:
    scores = np.array([0.13, 0.17, 0.30, 0.5], dtype=np.float32)
    # (0.2, 1) holds two; (0.15, 1.05) three; 0.13 must not come in.
    assert sorted(sampling.draw_between(scores, 0.2, 1.0, 3, generator())) == [1, 2, 3]
    # (0, 0.1) holds none, (−0.05, 0.15) one.
    assert sampling.draw_between(scores, 0.0, 0.1, 1, generator()).tolist() == [0]
    below = np.array([-0.9, -0.4], dtype=np.float32)
    assert sampling.draw_between(below, 0.3, 1.0, 1, generator()).tolist() == [1]
    # A new run: all scores are 0, and so is the threshold.
    assert len(sampling.draw_between(np.zeros(9), 0.0, 0.0, 1, generator())) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_small_class_repeats_in_turn(count: int) -> None:
    drawn = sampling.draw_between(np.array([0.9, -1.0]), 0.2, 1.0, count, generator())
    times = np.bincount(drawn, minlength=2)
    assert times.sum() == count and (count == 1 or abs(times[0] - times[1]) <= 1)
    one = sampling.draw_between(np.array([0.4]), 0.5, 1.0, count, generator())
    assert one.tolist() == [0] * count


def test_easy_come_first_then_hard() -> None:
    scores = [np.linspace(-0.1, 0.8, 40), np.linspace(0.1, 0.9, 30)]
    chosen = sampling.choose_easy_and_hard(scores, 0.3, 5, 2, generator())
    assert chosen.shape == (2, 7)
    for own, positions in zip(scores, chosen, strict=True):
        assert (own[positions[:5]] > 0.3).all()
        assert (own[positions[5:]] < 0.3).all() and (own[positions[5:]] > 0).all()


def test_even_draws_repeat_no_more_than_they_must() -> None:
    chosen = sampling.choose_evenly([3, 20], 8, generator())
    assert np.bincount(chosen[0]).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])
    assert len(set(chosen[1].tolist())) == 8


def test_threshold_sample() -> None:
    assert sampling.threshold_sample(50, 50, generator()) is None
    drawn = sampling.threshold_sample(1000, 50, generator())
    assert len(set(drawn.tolist())) > 40 and drawn.min() >= 0 and drawn.max() < 1000


def test_draws_depend_on_seed_and_step_alone_and_no_two_streams_agree() -> None:
    def drawn(seed: int, step: int, sample: int, slot: int) -> list[float]:
        keys = np.array([sample]), np.array([slot])
        return branch_augmentation_draws(seed, step, *keys, 4)[0].tolist()

    keys = [(1, 0), (1, 1), (2, 0)]
    draws = [branch_generator(*key).random(4).tolist() for key in keys]
    draws += [
        drawn(*key)
        for key in [(1, 0, 5, 0), (1, 0, 5, 1), (1, 0, 6, 0), (1, 1, 5, 0), (2, 0, 5, 0)]
    ]
    assert len({tuple(d) for d in draws}) == len(draws)
    assert drawn(1, 0, 5, 1) == draws[4]


def test_easiness_is_the_logistic_curve_without_overflow() -> None:
    scores = np.array([0.3, 0.35, -1.0, 1.0], dtype=np.float32)
    got = sampling.easiness(scores, 0.3, 0.05)
    want = 1 / (1 + np.exp(-(scores.astype(np.float64) - 0.3) / 0.05))
    assert got == pytest.approx(want, rel=1e-5, abs=1e-7) and got.dtype == np.float32
    assert sampling.easiness(scores, 0.3, 1e-9).tolist()[1:] == [1.0, 0.0, 1.0]
