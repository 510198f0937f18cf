"""Windows: a permutation that files can be read in sequence for, a function of (seed, epoch)."""

from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.data.batches.order import SPARES, OrderedSteps
from arcface_plus.data.batches.windows import STRIPES, Windows

SIZES = [(1, 5), (10, 3), (63, 100), (64, 64), (1000, 100), (1003, 1003), (5000, 700)]


def whole(windows: Windows, epoch: int) -> list[int]:
    return windows.at(epoch, np.arange(windows.num_samples)).tolist()


@pytest.mark.parametrize(("samples", "window"), SIZES)
def test_an_epoch_has_each_image_once(samples: int, window: int) -> None:
    windows = Windows(samples, 3, window)
    for epoch in range(3):
        assert sorted(whole(windows, epoch)) == list(range(samples))
    assert windows.count == -(-samples // window)
    assert np.diff(windows._starts).max() <= window + STRIPES


@pytest.mark.parametrize(("samples", "window"), SIZES)
def test_a_window_is_its_runs_and_they_are_few(samples: int, window: int) -> None:
    windows = Windows(samples, 3, window)
    order, starts = whole(windows, 1), windows._starts.tolist()
    for number in range(windows.count):
        runs = windows.runs(1, number)
        images = [i for run in runs for i in range(*run)]
        assert sorted(order[starts[number] : starts[number + 1]]) == images
        assert len(runs) <= 2 * STRIPES
    for stripe in range(STRIPES if samples > STRIPES else 0):
        low, high = windows._borders[stripe : stripe + 2]
        # Window after window, a stripe is read on where it was left, once around.
        mine = [r for n in range(windows.count) for r in windows.runs(1, n) if low <= r[0] < high]
        assert sum(end - first for first, end in mine) == high - low


def test_images_are_shuffled_over_the_window_and_windows_over_the_set() -> None:
    windows = Windows(64_000, 0, 6400)
    first = np.array(whole(windows, 0)[:6400])
    assert np.bincount(first // 1000, minlength=64).tolist() == [100] * 64
    batch = first[:640]
    assert np.unique(batch // 1000).size > 60  # of every part of the set
    assert abs(np.corrcoef(np.arange(6400), first)[0, 1]) < 0.06
    other = np.array(whole(windows, 1)[:6400])
    assert len(set(first.tolist()) & set(other.tolist())) < 1500  # about a tenth


def test_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {tuple(whole(Windows(500, seed, 90), e)) for seed in (0, 1, 256) for e in range(4)}
    assert len(orders) == 12
    assert whole(Windows(500, 1, 90), 2) == whole(Windows(500, 1, 90), 2)
    assert whole(Windows(12, 0, 6), 0) == [1, 8, 4, 9, 3, 5, 0, 11, 6, 7, 10, 2]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_ranks_and_restarts_change_nothing(size: int) -> None:
    def steps(start: int = 0, rank: int = 0, size: int = 1) -> OrderedSteps:
        of = {"seed": 3, "start": start, "stop": 40, "rank": rank, "size": size, "window": 30}
        return OrderedSteps(103, 10, **of)

    planned = list(steps())
    parts = [list(steps(rank=r, size=size)) for r in range(size)]
    for step, plan in enumerate(planned):
        epoch, part = divmod(step, 10)
        order = np.roll(whole(Windows(103, 3, 30), epoch), -10 * part)
        assert plan.candidates.tolist() == order[: 10 + SPARES].tolist()
        joined = [i for p in parts for i in p[step].candidates[: p[step].length].tolist()]
        assert joined == order[:10].tolist() == steps().global_indices(step).tolist()
    late = steps(start=17)
    assert [p.candidates.tolist() for p in late] == [p.candidates.tolist() for p in planned[17:]]


@pytest.mark.parametrize("start", [0, 4, 17])
def test_each_window_is_read_ahead_before_it_begins(start: int) -> None:
    steps = OrderedSteps(500, 10, seed=3, start=start, stop=160, window=100)
    told: set[tuple[int, int]] = set()
    wishes = 0
    for plan in steps:
        epochs = range(plan.epoch, plan.epoch + 2)
        told |= {(e, i) for run in plan.ahead for i in range(*run) for e in epochs}
        wishes += len(plan.ahead) > 0
        assert {(plan.epoch, int(i)) for i in plan.candidates[: plan.length]} <= told
    assert wishes <= (160 - start) // 10 + 2  # once a window


def test_memory_is_that_of_a_few_windows() -> None:
    windows = Windows(40_000_000, 0, 2**14)
    for place in (0, 39_999_000, 20_000_000, 5):
        windows.at(0, np.arange(place, place + 512))
    assert windows._window.cache_info().currsize <= 3
