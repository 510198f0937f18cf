"""The learning rate of every step."""

from __future__ import annotations

import math

import pytest

from arcface_plus.training.schedule import lr_at
from arcface_plus.training.settings import ScheduleConfig


def rates(total: int, base: float = 0.1, **schedule) -> list[float]:
    config = ScheduleConfig(**schedule)
    return [lr_at(s, base_lr=base, total_steps=total, schedule=config) for s in range(total)]


def test_schedule_of_the_paper():
    lr = rates(38_000, milestones=(23_750, 33_250))
    assert lr[0] == lr[23_749] == 0.1
    assert lr[23_750] == lr[33_249] == pytest.approx(0.01)
    assert lr[33_250] == lr[-1] == pytest.approx(0.001)
    assert sorted(set(lr), reverse=True) == pytest.approx([0.1, 0.01, 0.001])


def test_without_milestones_nothing_changes():
    assert set(rates(50)) == {0.1}


def test_gamma_is_the_factor_of_each_milestone():
    assert rates(4, base=8, milestones=(1, 2, 3), gamma=0.5) == [8, 4, 2, 1]
    assert rates(4, base=8, milestones=(1, 2, 3), gamma=1) == [8, 8, 8, 8]


@pytest.mark.parametrize("kind", ["milestones", "polynomial", "cosine"])
def test_warm_up_rises_linearly_to_the_base(kind):
    lr = rates(20, kind=kind, warmup_steps=5)
    assert lr[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert lr[5] == 0.1  # the fall begins after it
    assert lr[4:] == sorted(lr[4:], reverse=True)


def test_milestones_count_from_the_first_step_not_from_the_end_of_the_warm_up():
    assert rates(8, warmup_steps=2, milestones=(4,), gamma=0.5) == pytest.approx(
        [0.05, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05]
    )


@pytest.mark.parametrize("power", [1, 2, 3.5])
@pytest.mark.parametrize("warmup", [0, 10])
def test_polynomial(power, warmup):
    lr = rates(110, kind="polynomial", power=power, warmup_steps=warmup, final_lr=0.01)
    for step in range(warmup, 110):
        left = 1 - (step - warmup) / (110 - warmup)
        assert lr[step] == pytest.approx(0.01 + 0.09 * left**power)
    assert lr[warmup] == 0.1 and lr[-1] > 0.01


def test_arcface_torchs_schedule_but_for_its_first_steps():
    """Its recursion, started at the base rate; its warm-up makes the very first step at full rate
    and then begins at 0, which ours does not.
    """
    ours = rates(110, kind="polynomial", power=1, warmup_steps=10)
    theirs = 0.1
    for step in range(11, 110):
        theirs *= (1 - (step - 10) / 100) / (1 - (step - 11) / 100)
        assert ours[step] == pytest.approx(theirs)
    assert ours[0] == pytest.approx(0.01) and ours[9] == ours[10] == 0.1


@pytest.mark.parametrize("warmup", [0, 10])
def test_cosine(warmup):
    lr = rates(110, kind="cosine", warmup_steps=warmup, final_lr=0.02)
    length = 110 - warmup
    assert lr[warmup] == 0.1
    assert lr[warmup + length // 2] == pytest.approx(0.06)
    assert lr[-1] == pytest.approx(0.02 + 0.04 * (1 + math.cos(math.pi * (length - 1) / length)))


@pytest.mark.parametrize("kind", ["polynomial", "cosine"])
def test_the_end_is_after_the_last_step_and_not_below(kind):
    config = ScheduleConfig(kind=kind, final_lr=0.003)
    for step in (100, 101, 1000):
        assert lr_at(step, base_lr=0.1, total_steps=100, schedule=config) == pytest.approx(0.003)
    assert lr_at(99, base_lr=0.1, total_steps=100, schedule=config) > 0.003


def test_a_single_step():
    for kind in ("milestones", "polynomial", "cosine"):
        assert rates(1, kind=kind) == [0.1]
