from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from arcface_plus.training.health.guard import BatchNormRestorer, FiniteGuard, NonFiniteError
from arcface_plus.training.settings import TrainConfig

FINE, NAN, INF = torch.tensor(1.0), torch.tensor(math.nan), torch.tensor(math.inf)
NONE = torch.tensor(1.0)  # the scale where nothing is scaled


def guard(**settings) -> FiniteGuard:
    return FiniteGuard(TrainConfig(**settings), torch.device("cpu"))


def names(step: int) -> str:
    return f"images of step {step}"


@pytest.mark.parametrize(("loss", "norm", "skip"), [
    (FINE, FINE, 0), (NAN, FINE, 1), (FINE, NAN, 1), (FINE, INF, 1), (INF, FINE, 1),
])  # fmt: skip
def test_skips_what_is_not_finite(loss, norm, skip) -> None:
    assert guard().observe(0, loss, norm, NONE).item() == skip


def test_stop_names_the_first_bad_step_and_its_images() -> None:
    watcher = guard()
    for step, loss in enumerate([FINE, FINE, NAN, FINE, NAN]):
        watcher.observe(step, loss, FINE, NONE)
    with pytest.raises(NonFiniteError, match=r"step 2: .* images of step 2\."):
        watcher.check(names)


def test_nothing_to_say_while_all_is_well() -> None:
    watcher = guard()
    watcher.observe(0, FINE, FINE, NONE)
    assert watcher.check(names) is None


def test_skip_goes_on_within_the_bound() -> None:
    watcher = guard(on_nonfinite="skip", nonfinite_limit=2)
    watcher.observe(4, NAN, FINE, NONE)
    assert "step 4" in watcher.check(names)
    assert watcher.check(names) is None, "said once"
    watcher.observe(5, FINE, INF, NONE)
    watcher.observe(6, FINE, INF, NONE)
    with pytest.raises(NonFiniteError, match=r"3 skipped steps, more than .*\(2\)"):
        watcher.check(names)


def test_fp16_overflow_is_counted_not_reported() -> None:
    watcher, scale = guard(), torch.tensor(1024.0)
    assert watcher.observe(0, FINE, INF, scale).item() == 1
    assert watcher.check(names) is None and watcher.skipped() == 1
    watcher.observe(1, NAN, INF, scale)
    with pytest.raises(NonFiniteError, match="step 1"):
        watcher.check(names)


def counted(watcher: FiniteGuard, gradients: list[torch.Tensor], scale: float, step: int) -> float:
    """Observe ``gradients`` from ``step`` on, with a scale that falls as a scaler's does."""
    for number, gradient in enumerate(gradients):
        skip = watcher.observe(step + number, FINE, gradient, torch.tensor(scale))
        scale = max(1.0, scale / 2) if skip else scale
    return scale


def test_gradients_that_no_scale_cures_count_from_the_smallest_scale_on() -> None:
    watcher = guard(on_nonfinite="skip", nonfinite_limit=3)
    scale = counted(watcher, [NAN] * 10, 1024.0, 0)  # at 1024, 512, …, 2
    assert scale == 1 and watcher.check(names) is None and watcher.skipped() == 10
    counted(watcher, [FINE, NAN, FINE, NAN, FINE, NAN], scale, 10)
    assert "step 11:" in watcher.check(names), "the scale has not recovered: each counts"
    counted(watcher, [NAN], scale, 16)
    with pytest.raises(NonFiniteError, match=r"4 skipped steps, more than .*\(3\)"):
        watcher.check(names)


def test_a_scale_that_does_not_fall_excuses_no_more_steps_than_one_that_does() -> None:
    """Gradients can be finite while their squared norm is not: the scaler then does nothing."""
    watcher = guard()
    for step in range(4):
        watcher.observe(step, FINE, INF, torch.tensor(16.0))
    assert watcher.check(names) is None
    watcher.observe(4, FINE, FINE, torch.tensor(16.0))
    for step in range(5, 10):
        watcher.observe(step, FINE, INF, torch.tensor(16.0))
    with pytest.raises(NonFiniteError, match="step 9:"):
        watcher.check(names)


@pytest.mark.parametrize("cut", [3, 10, 12])
def test_a_resumed_guard_counts_on(cut: int) -> None:
    whole, first, second = (guard(on_nonfinite="skip") for _ in range(3))
    counted(whole, [NAN] * 14, 1024.0, 0)
    scale = counted(first, [NAN] * cut, 1024.0, 0)
    second.restore({}, json.loads(json.dumps(first.numbers())))
    counted(second, [NAN] * (14 - cut), scale, cut)
    assert second.numbers() == whole.numbers() and whole.numbers()["skipped_steps"] == [4, 10, 14]
    second.restore({}, {"skipped_steps": [0, -1, 2]})  # a checkpoint from before
    assert second.skipped() == 2 and second.scale_left == guard().scale_left


def test_statistics_come_back_only_where_a_step_was_bad() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    restorer = BatchNormRestorer(net)
    restorer.remember()
    kept = net[1].running_mean.clone()
    net(torch.full((2, 1, 2, 2), math.nan))
    assert net[1].running_mean.isnan().all()
    restorer.restore_if(torch.ones(()))
    assert torch.equal(net[1].running_mean, kept)
    net(torch.randn(4, 1, 2, 2))
    moved = net[1].running_mean.clone()
    restorer.restore_if(torch.zeros(()))
    assert torch.equal(net[1].running_mean, moved)
