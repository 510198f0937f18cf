from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from arcface_plus.training.health.guard import BatchNormRestorer, FiniteGuard, NonFiniteError
from arcface_plus.training.settings import TrainConfig

FINE, NAN, INF = torch.tensor(1.0), torch.tensor(math.nan), torch.tensor(math.inf)


def guard(overflow_is_normal: bool = False, **settings) -> FiniteGuard:
    config = TrainConfig(**settings)
    return FiniteGuard(config, torch.device("cpu"), overflow_is_normal=overflow_is_normal)


def names(step: int) -> str:
    return f"images of step {step}"


@pytest.mark.parametrize(("loss", "norm", "skip"), [
    (FINE, FINE, 0), (NAN, FINE, 1), (FINE, NAN, 1), (FINE, INF, 1), (INF, FINE, 1),
])  # fmt: skip
def test_skips_what_is_not_finite(loss, norm, skip) -> None:
    assert guard().observe(0, loss, norm).item() == skip


def test_stop_names_the_first_bad_step_and_its_images() -> None:
    watcher = guard()
    for step, loss in enumerate([FINE, FINE, NAN, FINE, NAN]):
        watcher.observe(step, loss, FINE)
    with pytest.raises(NonFiniteError, match=r"step 2: .* images of step 2\."):
        watcher.check(names)


def test_nothing_to_say_while_all_is_well() -> None:
    watcher = guard()
    watcher.observe(0, FINE, FINE)
    assert watcher.check(names) is None


def test_skip_goes_on_within_the_bound() -> None:
    watcher = guard(on_nonfinite="skip", nonfinite_limit=2)
    watcher.observe(4, NAN, FINE)
    assert "step 4" in watcher.check(names)
    assert watcher.check(names) is None, "said once"
    watcher.observe(5, FINE, INF)
    watcher.observe(6, FINE, INF)
    with pytest.raises(NonFiniteError, match=r"3 skipped steps, more than .*\(2\)"):
        watcher.check(names)


def test_fp16_overflow_is_counted_not_reported() -> None:
    watcher = guard(overflow_is_normal=True)
    assert watcher.observe(0, FINE, INF).item() == 1
    assert watcher.check(names) is None and watcher.skipped() == 1
    watcher.observe(1, NAN, INF)
    with pytest.raises(NonFiniteError, match="step 1"):
        watcher.check(names)


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
