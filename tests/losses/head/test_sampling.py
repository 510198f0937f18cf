from __future__ import annotations

import math

import pytest
import torch

from arcface_plus import devices
from arcface_plus.losses.head.sampling import (
    class_draws,
    full_share,
    sample_capacity,
    sampled_rows,
)

CPU = torch.device("cpu")


def naive_draw(seed: int, step: int, c: int) -> float:
    """The same in plain Python integers."""
    mask = (1 << 64) - 1

    def splitmix(v: int) -> int:
        z = (v + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    key = splitmix(splitmix(seed) ^ step)
    x = (c * 0x9E3779B97F4A7C15 + key) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    x ^= x >> 31
    return (x >> 40) * 2.0**-24


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (3, 17), (2**31 - 1, 10**6)])
def test_draws_are_the_hash(seed: int, step: int) -> None:
    got = class_draws(seed, step, 1000, 1050, CPU).tolist()
    assert got == [naive_draw(seed, step, c) for c in range(1000, 1050)]


def test_draws_do_not_depend_on_the_cut() -> None:
    whole = class_draws(1, 2, 0, 1003, CPU)
    assert torch.equal(
        torch.cat([class_draws(1, 2, 0, 400, CPU), class_draws(1, 2, 400, 1003, CPU)]), whole
    )


def test_draws_are_uniform_and_independent_over_steps() -> None:
    draws = torch.stack([class_draws(0, step, 0, 20_000, CPU) for step in range(5)])
    counts = torch.histc(draws, bins=20, min=0, max=1)
    assert ((counts - 5000).abs() < 5 * 70).all()
    correlation = torch.corrcoef(draws).fill_diagonal_(0)
    assert correlation.abs().max() < 0.03


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_positives_always_take_part_and_the_rest_at_the_rate(rate: float) -> None:
    positives = torch.tensor([500, 999, 1400, 1400, 7])
    rows, taking_part = sampled_rows(positives, rate=rate, seed=0, step=3, lo=400, hi=1500)
    assert taking_part is None
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert {100, 599, 1000} <= set(rows.tolist()), "positives of this shard, as its rows"
    assert 0 <= rows.min() < rows.max() < 1100
    expected = rate * 1100
    assert abs(len(rows) - 3 - expected) < 5 * (expected**0.5) + 3


def test_drawn_classes_make_up_for_the_steps_without_them_and_positives_need_not() -> None:
    rows, positives = torch.tensor([0, 3, 9, 41]), torch.tensor([403, 1, 441, 403, 2000])
    share = full_share(rows, positives, rate=0.25, lo=400)
    assert share.tolist() == [4.0, 1.0, 4.0, 1.0]
    assert full_share(rows, torch.tensor([5]), rate=0.25, lo=400).tolist() == [4.0] * 4
    assert full_share(rows[:0], positives, rate=0.25, lo=400).shape == (0,)


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
@pytest.mark.parametrize(("lo", "hi"), [(0, 1500), (1100, 1100), (900, 903)])
def test_a_sample_of_fixed_size_holds_the_same_classes(
    rate: float, lo: int, hi: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    positives = torch.tensor([500, 999, 1400, 1400, 7, 901])
    where = {"rate": rate, "seed": 0, "step": 3, "lo": lo, "hi": hi}
    expected, _ = sampled_rows(positives, **where)
    monkeypatch.setattr(devices, "host_may_look", lambda device: False)
    rows, taking_part = sampled_rows(positives, **where)
    assert len(rows) == sample_capacity(hi - lo, rate, 6) <= hi - lo
    assert (rows.diff() > 0).all() and ((rows >= 0) & (rows < hi - lo)).all()
    assert torch.equal(rows[taking_part], expected)


@pytest.mark.parametrize(("classes", "rate"), [(10, 0.5), (2000, 0.1), (20_000, 0.01), (300, 1.0)])
def test_capacity_is_almost_never_reached_and_not_much_too_large(classes, rate) -> None:
    """Against the exact tail of the binomial distribution."""
    size = sample_capacity(classes, rate, 0)
    terms = [
        math.lgamma(classes + 1) - math.lgamma(k + 1) - math.lgamma(classes - k + 1)
        + k * math.log(rate) + (classes - k) * math.log1p(-rate)
        for k in range(size + 1, classes + 1)
    ] if rate < 1 else []  # fmt: skip
    assert sum(map(math.exp, terms)) < 2.0**-64
    deviation = math.sqrt(classes * rate * (1 - rate))
    assert size <= min(classes, classes * rate + 11 * deviation + 31)
    assert sample_capacity(classes, rate, 7) == min(classes, size + 7)
