"""Runs of one process that are asked to stop; tests/distributed has those of several."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from arcface_plus import load_model
from arcface_plus.runs import preemption
from arcface_plus.runs.preemption import MARKER, Stopped, StopRequest, stops_on_signals
from arcface_plus.runs.train import train
from arcface_plus.training.trainer import Trainer
from arcface_plus.watch import Watch

# Log steps and checkpoints do not coincide with the step that the run stops at.
WORDS = ["--train.steps", "9", "--train.log_every", "4", "--train.checkpoint_every", "6"]
WORDS += ["--model.dropout", "0.3"]


def asks(monkeypatch: pytest.MonkeyPatch, number: signal.Signals, *, step: int) -> None:
    """Send this process a signal in the middle of a step, once."""
    real = Trainer.train_step

    def train_step(self, batch):
        if batch.step == step:
            monkeypatch.setattr(Trainer, "train_step", real)
            os.kill(os.getpid(), number)
        return real(self, batch)

    monkeypatch.setattr(Trainer, "train_step", train_step)


def log_without_times(folder: Path) -> list[dict]:
    times = {"images_per_second", "data_wait", "seconds_left"}
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        {k: line[k] for k in line if k not in times and not k.endswith("_share")} for line in lines
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_run_that_was_asked_to_stop_continues_as_if_it_had_not(
    tiny: Path, monkeypatch, capsys, number
) -> None:
    whole = train(tiny, [*WORDS, "--name", "whole"])
    asks(monkeypatch, number, step=4)
    with pytest.raises(Stopped) as stopped:
        train(tiny, WORDS)
    folder = whole.parent / "tiny"
    assert stopped.value.code == 0 and not (folder / "model.safetensors").exists()
    assert (folder / "checkpoints" / "step-00000005").is_dir()
    assert "step 5" in (folder / MARKER).read_text()
    assert "asked to stop: saved step 5; --resume auto continues" in capsys.readouterr().out
    train(tiny, WORDS, resume="auto")
    assert not (folder / MARKER).exists()
    a, b = load_model(whole).state_dict(), load_model(folder).state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert log_without_times(folder) == log_without_times(whole)
    assert [line["step"] for line in log_without_times(folder)] == [1, 4, 8, 9]


def test_ctrl_c_saves_and_is_told_from_a_preemption(tiny: Path, monkeypatch) -> None:
    asks(monkeypatch, signal.SIGINT, step=2)
    with pytest.raises(Stopped) as stopped:
        train(tiny, WORDS)
    folder = tiny.parent / "runs" / "tiny"
    assert stopped.value.code == 130 and not (folder / MARKER).exists()
    assert (folder / "checkpoints" / "step-00000003" / "manifest.json").is_file()


def test_a_second_ctrl_c_interrupts_at_once(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now[0])
    request = StopRequest(Watch())
    request.handle(signal.SIGINT, None)
    assert request.watch.stopping and request.exit_code == 130
    now[0] += 0.5  # the same Ctrl-C, passed on by a launcher
    request.handle(signal.SIGINT, None)
    now[0] += 1.0
    with pytest.raises(KeyboardInterrupt):
        request.handle(signal.SIGINT, None)


def test_sigterm_after_ctrl_c_does_not_interrupt() -> None:
    request = StopRequest(Watch())
    request.handle(signal.SIGINT, None)
    request.at -= 60
    request.handle(signal.SIGTERM, None)
    assert request.exit_code == 0


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    with stops_on_signals(Watch()):
        assert signal.getsignal(signal.SIGTERM) not in before
    after = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    assert after == before


def test_a_thread_that_is_not_the_main_one_gets_no_signals() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        with stops_on_signals(Watch()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
