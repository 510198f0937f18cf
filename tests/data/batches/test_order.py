"""The order of images is a function of (seed, epoch) alone."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from arcface_plus.data.batches.order import SPARES, OrderedSteps, epoch_order
from arcface_plus.randomness import augmentation_draws, epoch_generator, window_generator


def plans(samples=103, batch=10, *, start=0, stop=25, rank=0, size=1, seed=3):
    steps = OrderedSteps(samples, batch, seed=seed, start=start, stop=stop, rank=rank, size=size)
    return list(steps)


def own(plan) -> list[int]:
    return plan.candidates[: plan.length].tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_ranks_part_the_same_global_batch(size):
    parts = [plans(rank=r, size=size) for r in range(size)]
    steps = OrderedSteps(103, 10, seed=3, start=0, stop=25)
    for step, whole in enumerate(plans()):
        joined = [index for part in parts for index in own(part[step])]
        assert joined == own(whole) == steps.global_indices(step).tolist()
        lengths = [part[step].length for part in parts]
        assert sum(lengths) == 10 and max(lengths) - min(lengths) <= 1


def test_an_epoch_takes_each_image_once_and_drops_the_incomplete_batch():
    steps = plans(samples=103, batch=10, stop=30)
    for epoch in range(3):
        taken = [i for plan in steps[10 * epoch : 10 * epoch + 10] for i in own(plan)]
        assert len(taken) == len(set(taken)) == 100 and set(taken) <= set(range(103))
        assert taken == epoch_order(103, 3, epoch)[:100].tolist()
        assert {plan.epoch for plan in steps[10 * epoch : 10 * epoch + 10]} == {epoch}


def test_an_epoch_that_batches_divide_is_whole():
    taken = [i for plan in plans(samples=100, batch=10, stop=10) for i in own(plan)]
    assert sorted(taken) == list(range(100))
    steps = OrderedSteps(100, 100, seed=0, start=0, stop=2)
    assert steps.steps_per_epoch == 1
    assert [plan.epoch for plan in steps] == [0, 1]


@pytest.mark.parametrize("start", [1, 9, 10, 17, 25])
@pytest.mark.parametrize("size", [1, 3])
def test_starting_late_is_continuing(start, size):
    late, whole = plans(start=start, rank=size - 1, size=size), plans(rank=size - 1, size=size)
    assert len(late) == 25 - start
    for a, b in zip(late, whole[start:], strict=True):
        assert (a.step, a.epoch, a.length) == (b.step, b.epoch, b.length)
        np.testing.assert_array_equal(a.candidates, b.candidates)


def test_any_step_may_be_asked_for_in_any_order():
    steps = OrderedSteps(103, 10, seed=3, start=0, stop=25)
    whole = plans()
    for step in (24, 0, 11, 9, 10):
        assert own(steps.plan(step)) == own(whole[step])
        assert steps.global_indices(step).tolist() == own(whole[step])


def test_length_is_what_is_left():
    assert len(OrderedSteps(100, 10, seed=0, start=4, stop=9)) == 5
    assert len(OrderedSteps(100, 10, seed=0, start=9, stop=9)) == 0
    assert len(OrderedSteps(100, 10, seed=0, start=12, stop=9)) == 0
    assert plans(start=12, stop=9) == []


def test_candidates_follow_the_order_and_wrap_within_the_epoch():
    order = epoch_order(103, 3, 0)
    last = plans(stop=10)[9]
    assert last.candidates.tolist() == np.roll(order, -90)[: 10 + SPARES].tolist()
    few = plans(samples=12, batch=10, stop=1)[0]
    assert len(few.candidates) == 10 + SPARES
    assert few.candidates[:24].tolist() == [*epoch_order(12, 3, 0).tolist()] * 2


def test_candidates_are_python_sized_integers():
    # uint32 would wrap in arithmetic and is no index for every source.
    assert plans(stop=1)[0].candidates.dtype == np.int64


@pytest.mark.parametrize("samples", [1, 2, 97, 4096])
def test_order_is_a_permutation(samples):
    assert sorted(epoch_order(samples, 5, 2).tolist()) == list(range(samples))


def test_order_depends_on_seed_and_epoch():
    orders = {epoch_order(500, seed, epoch).tobytes() for seed in (0, 1, 256) for epoch in range(4)}
    assert len(orders) == 12
    assert (epoch_order(500, 1, 2) == epoch_order(500, 1, 2)).all()


def test_order_is_uniform():
    """Every image comes first about equally often: chi-squared with 9 degrees of freedom."""
    firsts = np.bincount([epoch_order(10, 0, e)[0] for e in range(2000)], minlength=10)
    assert ((firsts - 200) ** 2 / 200).sum() < 33.7  # exceeded once in ten thousand seeds


def test_order_stays_what_it_was():
    """A run begun with an older version must resume in the same order."""
    assert epoch_order(12, 0, 0).tolist() == [1, 7, 2, 4, 5, 8, 0, 6, 9, 3, 10, 11]
    assert epoch_order(12, 7, 300).tolist() == [11, 5, 2, 6, 10, 9, 8, 3, 1, 4, 7, 0]


def test_order_takes_four_bytes_an_image():
    samples = 1_000_000
    assert epoch_order(samples, 0, 0).nbytes == 4 * samples
    steps = OrderedSteps(samples, samples, seed=0, start=0, stop=3)
    tracemalloc.start()
    try:
        for step in range(3):
            steps._order.at(step, np.arange(8))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4.5 * samples  # one permutation, also while the next one replaces it


@pytest.mark.parametrize("samples", [0, -1, 2**32])
def test_impossible_number_of_images(samples):
    with pytest.raises(ValueError, match="1 to 2"):
        epoch_order(samples, 0, 0)


def test_batch_larger_than_the_data():
    with pytest.raises(ValueError, match=r"train.global_batch is 11, but there are only 10"):
        OrderedSteps(10, 11, seed=0, start=0, stop=1)
    assert OrderedSteps(10, 10, seed=0, start=0, stop=1).steps_per_epoch == 1


def test_generators_do_not_share_numbers():
    """Neither order, windows nor class weights, at neighbouring keys."""
    draws = [epoch_generator(0, e).integers(2**63, size=8) for e in (0, 1, 255, 256, 257)]
    windows = [(0, None), (0, 0), (0, 1), (1, 0), (256, 0)]
    draws += [window_generator(0, *window).integers(2**63, size=8) for window in windows]
    for block in (0, 1, 256, 257):  # keyed as initial class weights are
        key = np.array([0, block], dtype=np.uint64)
        draws.append(np.random.Generator(np.random.Philox(key=key)).integers(2**63, size=8))
    assert len(np.unique(np.concatenate(draws))) == 8 * len(draws)


def test_draws_of_images_are_uniform_and_know_nothing_of_their_neighbours():
    """Neither of seed, epoch nor sample: chi-squared over 16 levels, and correlations."""
    samples = np.arange(20_000)
    drawn = augmentation_draws(0, 3, samples, 24)
    assert drawn.shape == (20_000, 24) and drawn.min() >= 0 and drawn.max() < 1
    for column in drawn.T:
        counts = np.bincount((16 * column).astype(int), minlength=16)
        assert ((counts - 1250) ** 2 / 1250).sum() < 44.3  # exceeded once in ten thousand
    others = [augmentation_draws(0, 4, samples, 24), augmentation_draws(1, 3, samples, 24)]
    others += [np.roll(drawn, 1, axis=0), np.roll(drawn, 1, axis=1)]
    for other in others:
        for a, b in zip(drawn.T, other.T, strict=True):
            assert abs(np.corrcoef(a, b)[0, 1]) < 4.4 / np.sqrt(len(samples))
    assert len(np.unique(drawn)) == drawn.size


def test_draws_of_an_image_are_its_own_in_any_batch():
    together = augmentation_draws(5, 2, np.array([9, 2**31, 0, 9]), 24)
    for row, sample in zip(together, [9, 2**31, 0, 9], strict=True):
        assert np.array_equal(augmentation_draws(5, 2, np.array([sample]), 24)[0], row)
        assert np.array_equal(augmentation_draws(5, 2, np.array([sample]), 5)[0], row[:5])
