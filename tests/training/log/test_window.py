"""The window of a log line, cut by a checkpoint."""

from __future__ import annotations

import json

import pytest
import torch

from arcface_plus.losses.head.output import HeadOutput
from arcface_plus.training.log.window import LogWindow

CPU = torch.device("cpu")


def add(window: LogWindow, step: int, *, skip: bool = False) -> None:
    rng = torch.Generator().manual_seed(step)
    loss, cosine = torch.rand((), generator=rng), torch.rand(5, generator=rng)
    output = HeadOutput(loss, loss / 3, -loss, cosine, torch.ones(5))
    window.add([output], loss, None, torch.tensor(float(skip)), 0.1 / (step + 1))


def timeless(values: dict) -> dict:
    return {k: v for k, v in values.items() if k != "images_per_second"}


@pytest.mark.parametrize("cut", range(7))
def test_a_window_cut_by_a_checkpoint_gives_the_bits_of_a_whole_one(cut: int) -> None:
    whole, before, after = (LogWindow(CPU) for _ in range(3))
    for step in range(6):
        add(whole, step, skip=step == 2)
    for step in range(cut):
        add(before, step, skip=step == 2)
    after.restore({}, json.loads(json.dumps(before.numbers())))
    for step in range(cut, 6):
        add(after, step, skip=step == 2)
    assert timeless(after.close(12)) == timeless(whole.close(12))


def test_speed_is_that_of_the_steps_of_this_process() -> None:
    before, after = LogWindow(CPU), LogWindow(CPU)
    for step in range(1000):
        add(before, step)
    after.restore({}, before.numbers())
    assert after.steps == 0
    add(after, 1000)
    assert after.steps == 1 and after.close(12)["loss"] > 0


def test_whether_the_first_line_was_written_is_kept() -> None:
    before, after = LogWindow(CPU), LogWindow(CPU)
    add(before, 0)
    before.close(12)
    after.restore({}, before.numbers())
    assert before.is_first is False and after.is_first is False


def test_a_checkpoint_from_before_leaves_an_empty_window() -> None:
    window = LogWindow(CPU)
    add(window, 0)
    window.restore({}, {"step": 4})
    assert window.sums == {} and float(window.counted) == 0


def test_a_line_says_which_share_of_the_time_each_part_took(monkeypatch) -> None:
    window, now, said = LogWindow(CPU), [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    window._reset()
    enter = window.entering(lambda phase, step: said.append((phase, step)))
    parts = {"data": 1, "plan": 2, "class logits": 4, "gradient all-reduce": 8, "penalty": 16}
    for phase, seconds in {
        **parts,
        "update": 32,
        "log": 64,
        "a phase of another name": 128,
    }.items():
        enter(phase, 7)
        now[0] += seconds
    add(window, 0)
    values = window.close(12)
    assert said[:2] == [("data", 7), ("plan", 7)] and len(said) == 8
    shares = {k: v * 255 for k, v in values.items() if k == "data_wait" or k.endswith("_share")}
    assert shares == pytest.approx(
        {
            "data_wait": 1,
            "forward_share": 6,
            "backward_share": 8,
            "mma_share": 16,
            "optimizer_share": 32,
        }
    )
