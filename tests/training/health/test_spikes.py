from __future__ import annotations

import json
import statistics

import numpy as np
import pytest
import torch

from arcface_plus.training.health.spikes import HISTORY, LossSpikes

CPU = torch.device("cpu")


def seen(watch: LossSpikes, losses: list[float], *, start: int = 0, look_every: int = 1) -> list:
    """Return what looks at every ``look_every`` steps found; a loss of None is a skipped step."""
    found = []
    for step, loss in enumerate(losses, start):
        value = torch.tensor(1e9 if loss is None else loss)
        watch.observe(step, value, torch.tensor(float(loss is None)))
        if (step + 1) % look_every == 0:
            found.append(watch.look())
    return [spike for spike in found if spike is not None]


def curve(steps: int, seed: int = 0) -> list[float]:
    """An ordinary curve: it falls from 30 to 2, with noise of a tenth."""
    noise = np.random.default_rng(seed).normal(1, 0.1, steps)
    return [float((2 + 28 * np.exp(-k / 80)) * noise[k]) for k in range(steps)]


def test_ordinary_curves_are_silent() -> None:
    assert all(seen(LossSpikes(CPU), curve(600, seed)) == [] for seed in range(10))
    assert seen(LossSpikes(CPU), curve(400)[::-1]) == [], "a margin that grows lets it rise slowly"


@pytest.mark.parametrize("look_every", [1, 50])
def test_names_the_step_its_loss_and_the_median_before_it(look_every: int) -> None:
    losses = curve(400)
    losses[333] = 15.0
    (spike,) = seen(LossSpikes(CPU), losses, look_every=look_every)
    usual = statistics.median_high(losses[333 - HISTORY : 333])
    assert (spike.step, spike.loss) == (333, 15.0) and spike.usual == pytest.approx(usual, rel=1e-7)


def test_each_part_of_the_rule() -> None:
    flat = [0.01] * HISTORY
    assert seen(LossSpikes(CPU), [*flat, 0.9]) == [], "a fitted net: less than a nat"
    assert len(seen(LossSpikes(CPU), [*flat, 1.1])) == 1
    flat = [20.0] * HISTORY
    assert seen(LossSpikes(CPU), [*flat, 39.0]) == [], "less than twice the median"
    assert len(seen(LossSpikes(CPU), [*flat, 41.0])) == 1
    wide = [2.0, 8.0] * (HISTORY // 2)  # 1.4826 × 6 above a median of 8
    assert seen(LossSpikes(CPU), [*wide, 78.0]) == [] and seen(LossSpikes(CPU), [*wide, 80.0])


def test_says_nothing_before_half_a_history_is_known() -> None:
    assert seen(LossSpikes(CPU), [1.0] * (HISTORY // 2) + [500.0]) == []


def test_a_loss_that_stays_up_is_named_once_in_a_history() -> None:
    losses = [1.0] * HISTORY + [10.0] * 200
    assert [spike.step for spike in seen(LossSpikes(CPU), losses)] == [HISTORY]


def test_skipped_steps_count_for_nothing() -> None:
    losses = [1.0] * HISTORY + [None] * HISTORY + [1.0] * 3 + [9.0]
    (spike,) = seen(LossSpikes(CPU), losses)
    assert spike.step == len(losses) - 1 and spike.usual == 1.0


@pytest.mark.parametrize("cut", [10, 70, 201])
def test_a_resumed_watch_finds_the_same(cut: int) -> None:
    losses = curve(300)
    losses[200] = losses[210] = 50.0
    first, second = LossSpikes(CPU), LossSpikes(CPU)
    found = seen(first, losses[:cut])
    second.restore({}, json.loads(json.dumps(first.numbers(), allow_nan=False)))
    found += seen(second, losses[cut:], start=cut)
    assert found == seen(LossSpikes(CPU), losses) and [spike.step for spike in found] == [200]


def test_a_checkpoint_from_before_begins_a_history() -> None:
    watch = LossSpikes(CPU)
    watch.restore({}, {"skipped_steps": [0, -1, 0]})
    assert seen(watch, [1.0] * HISTORY + [9.0], start=1000)[0].step == 1000 + HISTORY
