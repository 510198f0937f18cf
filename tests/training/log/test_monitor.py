"""What a run writes about itself."""

from __future__ import annotations

import csv
import json
import math
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from arcface_plus.training.log.monitor import Monitor, _duration

NUMBERS = {
    "loss": 12.34567,
    "mma": -1.2,
    "nearest_angle": 80.14,
    "target_angle": 77.1,
    "lr": 0.1,
    "images_per_second": 1234.5,
    "data_wait": 0.012,
    "backward_share": 0.61,
    "communication_share": 0.04,
}


def lines(folder: Path) -> list[dict]:
    def refuse(word: str):
        raise AssertionError(f"{word} is not JSON")

    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(e.step, e.value) for e in events.Scalars(tag)]


@pytest.fixture
def run(tmp_path):
    """Log and verify the steps start+1 … stop as a run would."""

    def run(start: int, stop: int, *, offset: float = 0.0) -> None:
        monitor = Monitor(tmp_path, total_steps=10, start_step=start)
        for step in range(start + 1, stop + 1):
            monitor.log(step, {"loss": step + offset})
        monitor.write(stop, {"lfw/accuracy": 0.5}, prefix="verification")
        monitor.close()

    return run


def test_numbers_go_to_the_file_in_full(tmp_path):
    monitor = Monitor(tmp_path, total_steps=100)
    monitor.advance(1)
    monitor.log(50, NUMBERS)
    monitor.write(50, {"lfw/accuracy": 0.9}, prefix="verification")
    monitor.close()
    train, verification = lines(tmp_path)
    assert train.pop("seconds_left") >= 0
    assert train == {"step": 50, "kind": "train", **NUMBERS}
    assert verification == {"step": 50, "kind": "verification", "lfw/accuracy": 0.9}
    assert scalars(tmp_path, "train/loss") == [(50, pytest.approx(12.34567))]
    assert scalars(tmp_path, "verification/lfw/accuracy") == [(50, pytest.approx(0.9))]


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path):
    monitor = Monitor(tmp_path, total_steps=100)
    monitor.log(1, {"loss": 1.0})
    assert len(lines(tmp_path)) == 1
    monitor.close()


def test_numbers_that_are_not_finite_are_still_json(tmp_path):
    monitor = Monitor(tmp_path, total_steps=100)
    monitor.log(
        1, {"loss": math.nan, "mma": -math.inf, "lr": np.float64(0.5), "eer": np.float64("nan")}
    )
    monitor.close()
    (line,) = lines(tmp_path)
    assert line["loss"] is None and line["mma"] is None and line["eer"] is None
    assert line["lr"] == 0.5


def test_plain_output_is_one_line_a_log_step(tmp_path, capsys):
    monitor = Monitor(tmp_path, total_steps=38_000)
    monitor.advance(1)
    monitor.log(50, NUMBERS)
    monitor.say("a [bold]message[/bold] with brackets " + "and many words " * 20)
    monitor.close()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("step 50/38000  loss 12.3457  MMA -1.2000  nearest class 80.1°")
    assert "own class 77.1°  lr 0.1  images/s 1234  data wait 1%" in first
    assert first.partition("  left ")[0].endswith("data wait 1%  backward 61%  communication 4%")
    assert second.startswith("a [bold]message[/bold] with")


def test_predictions_stand_behind_what_they_are_of(tmp_path, capsys):
    predicted = {"nearest_angle_uniform": 80.223, "termination_angle": 46.288}
    monitor = Monitor(tmp_path, total_steps=10)
    monitor.log(1, {**NUMBERS, **predicted})
    monitor.log(2, {**NUMBERS, "nearest_angle_uniform": 80.223})
    monitor.log(3, {"loss": 1.0, **predicted})  # every step of the window was skipped
    monitor.close()
    first, second, third = capsys.readouterr().out.splitlines()
    assert "  nearest class 80.1° of 80.2°  own class 77.1° to 46.3°  lr 0.1" in first
    assert "  nearest class 80.1° of 80.2°  own class 77.1°  lr 0.1" in second
    assert "°" not in third
    assert lines(tmp_path)[0]["termination_angle"] == 46.288


def test_only_known_numbers_are_shown(tmp_path, capsys):
    monitor = Monitor(tmp_path, total_steps=10)
    monitor.log(1, {"loss": 1.0, "something": 2.0})
    monitor.write(2, {"silent": 3.0})
    monitor.close()
    out = capsys.readouterr().out
    assert "loss 1.0000" in out and "something" not in out and "silent" not in out


@pytest.mark.parametrize("logged", [(41, 51), (51,)])
def test_time_left_counts_from_the_first_step_on(tmp_path, monkeypatch, capsys, logged):
    """The first step, 60 s long, says nothing of the others."""
    now = 1000.0
    monkeypatch.setattr("arcface_plus.training.log.monitor.time.monotonic", lambda: now)
    monitor = Monitor(tmp_path, total_steps=101, start_step=40)
    now = 1060.0
    for step in range(41, 52):
        monitor.advance(step)
        if step in logged:
            monitor.log(step, {"loss": 1.0})
        now += 2.0
    monitor.close()
    *first, last = lines(tmp_path)
    assert last["seconds_left"] == 100.0  # ten steps took 20 s, 50 are left
    assert all("seconds_left" not in line for line in first)
    assert capsys.readouterr().out.count("left") == 1


def test_other_ranks_write_and_say_nothing(tmp_path, capsys):
    monitor = Monitor(tmp_path / "absent", total_steps=10, enabled=False)
    monitor.advance(1)
    monitor.log(1, NUMBERS)
    monitor.write(1, NUMBERS)
    monitor.say("hello")
    monitor.close()
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


def test_resumed_run_leaves_the_lines_of_an_uninterrupted_one(tmp_path, run):
    run(0, 7)
    run(4, 10, offset=0.5)
    rows = lines(tmp_path)
    train = [(r["step"], r["loss"]) for r in rows if r["kind"] == "train"]
    assert train == [(s, float(s)) for s in range(1, 5)] + [(s, s + 0.5) for s in range(5, 11)]
    assert [r["step"] for r in rows if r["kind"] == "verification"] == [10]


def test_tensorboard_shows_the_same_steps(tmp_path, run):
    run(0, 7)
    # TensorBoard reads files in the order of their names: the second, then as text the number of
    # the process's writer, 10 before 9. A resumed run is another process, seconds later.
    time.sleep(1.1)
    run(4, 10, offset=0.5)
    steps = [step for step, _ in scalars(tmp_path, "train/loss")]
    assert steps == list(range(1, 11))


def test_a_table_for_spreadsheets_has_the_same_numbers(tmp_path, run):
    run(0, 4)
    run(2, 6)
    monitor = Monitor(tmp_path, total_steps=10, start_step=6)
    monitor.write(7, {"loss": math.nan, "lr": 0.1})
    monitor.warn(7, "words are left out")
    monitor.sync()
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6", "7"]
    assert [row["train/loss"] for row in rows] == ["1.0", "2.0", "3.0", "4.0", "5.0", "6.0", ""]
    assert [row["verification/lfw/accuracy"] for row in rows] == ["", "", "", "", "", "0.5", ""]
    assert rows[-1]["train/lr"] == "0.1" and "warning/message" not in rows[-1]
    monitor.close()


def test_numbers_of_the_checkpoint_step_itself_are_kept(tmp_path, run):
    run(0, 4)
    run(4, 5)
    assert [r["step"] for r in lines(tmp_path) if r["kind"] == "verification"] == [4, 5]


def test_run_that_starts_over_forgets_every_line(tmp_path):
    for _ in range(2):
        monitor = Monitor(tmp_path, total_steps=10)
        monitor.write(0, {"lfw/accuracy": 0.5}, prefix="verification")
        monitor.log(1, {"loss": 1.0})
        monitor.close()
    assert [r["step"] for r in lines(tmp_path)] == [0, 1]


@pytest.mark.parametrize("torn", ['{"step": 4, "kind": "tr', "4", "[]", "{}", "", '{"step": null}'])
def test_lines_torn_by_a_kill_are_dropped(tmp_path, run, torn):
    run(0, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    run(3, 4)
    assert [r["step"] for r in lines(tmp_path) if r["kind"] == "train"] == [1, 2, 3, 4]


def test_progress_bar_on_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monitor = Monitor(tmp_path, total_steps=10, start_step=2)
    monitor.advance(3)
    monitor.log(4, {"loss": 1.0})
    monitor.close_progress()
    monitor.say("after")
    monitor.close()
    monitor.close()  # harmless
    out = capsys.readouterr().out
    assert "training" in out and "/10" in out and "after" in out
    assert "step 4/10" not in out  # the bar is instead of the lines
    assert len(lines(tmp_path)) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3600, "1:00:00"), (360_000, "100:00:00")],
)
def test_duration(seconds, text):
    assert _duration(seconds) == text


def test_a_step_has_one_line_of_a_kind_also_after_a_resume(tmp_path):
    for start in (0, 6):
        monitor = Monitor(tmp_path, total_steps=6, start_step=start)
        monitor.write(6, {"lfw/accuracy": 0.5}, prefix="verification")
        monitor.warn(6, "one")
        monitor.warn(6, "two")
        monitor.close()
    kinds = [r["kind"] for r in lines(tmp_path)]
    assert kinds == ["verification", "warning", "warning"]


def test_a_full_disk_is_told_with_the_file_and_closes_all_the_same(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    monitor = Monitor(tmp_path, total_steps=6)
    with pytest.raises(OSError, match=r"No space left on device: .*metrics\.jsonl"):
        monitor.write(1, {"loss": 1.0})
    monitor.close()


@pytest.mark.parametrize(("number", "name"), enumerate(["metrics.csv", "tensorboard"]))
def test_a_full_disk_is_told_with_what_was_written(tmp_path, monkeypatch, number, name):
    monitor = Monitor(tmp_path, total_steps=6)
    full = OSError(28, "No space left on device")  # as its thread raises it: without a name
    monkeypatch.setattr(monitor._trackers[number], "flush", Mock(side_effect=full))
    with pytest.raises(OSError, match=rf"No space left on device: .*{name}"):
        monitor.sync()


def test_what_is_synced_before_a_checkpoint_survives_a_kill(tmp_path):
    monitor = Monitor(tmp_path, total_steps=6)
    for step in range(1, 5):
        monitor.log(step, {"loss": float(step)})
    monitor.sync()  # and then the process is killed: nothing is closed
    assert list(scalars(tmp_path, "train/loss")) == [(s, float(s)) for s in range(1, 5)]
    assert len(lines(tmp_path)) == 4
    monitor.close()
