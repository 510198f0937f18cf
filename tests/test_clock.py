"""Time is counted once, in the innermost phase, on the host's clock and by events of a device."""

from __future__ import annotations

import threading

import pytest
import torch

from arcface_plus import clock as module
from arcface_plus.clock import HostMark, StepClock, counted_as


class Device:
    """A device that is late: an event is done once the device has come to it."""

    def __init__(self) -> None:
        self.queued = self.done = 0.0
        self.waits = 0

    def event(self) -> Event:
        return Event(self)


class Event:
    def __init__(self, device: Device) -> None:
        self.device = device

    def record(self) -> None:
        self.at = self.device.queued

    def query(self) -> bool:
        return self.device.done >= self.at

    def synchronize(self) -> None:
        self.device.waits += 1
        self.device.done = self.device.queued

    def elapsed_time(self, later: Event) -> float:
        assert self.query() and later.query(), "it would raise on a device"
        return 1000 * (later.at - self.at)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def clock(device: Device, monkeypatch: pytest.MonkeyPatch) -> StepClock:
    found = StepClock(torch.device("cpu"))
    monkeypatch.setattr(found, "_new_mark", device.event)
    return found


def test_inner_phases_are_taken_out_of_outer_ones(clock: StepClock, device: Device) -> None:
    clock.enter("forward")
    device.queued += 1
    with counted_as("mma"):
        device.queued += 2
        with counted_as("communication"):
            device.queued += 4
        device.queued += 8
    device.queued += 16
    clock.enter("backward")
    # Autograd's thread, while this one waits for it.
    thread = threading.Thread(target=lambda: queue_as(device, "communication", 32))
    thread.start()
    thread.join()
    device.queued += 64
    clock.enter(None)
    with counted_as("communication"):
        device.queued += 128  # of an evaluation
    sums = {"forward": 17.0, "mma": 10.0, "communication": 36.0, "backward": 64.0}
    assert clock.read() == pytest.approx(sums) and clock.read() == {}


def queue_as(device: Device, phase: str, seconds: float) -> None:
    with counted_as(phase):
        device.queued += seconds


def test_the_host_waits_where_it_reads_and_nowhere_else(clock: StepClock, device: Device) -> None:
    for step in range(100):
        for phase in ("data", "forward", "backward"):
            clock.enter(phase)
            device.queued += 1
        device.done = max(0.0, device.queued - 6)  # runs behind by two steps
        assert len(clock._marks) <= 10, step
    assert device.waits == 0 and len(clock._spare) <= 10
    assert clock.read() == pytest.approx({"data": 100.0, "forward": 100.0, "backward": 100.0})
    assert device.waits == 1


def test_a_block_that_fails_ends_its_phase(clock: StepClock, device: Device) -> None:
    clock.enter("forward")
    with pytest.raises(OSError, match="broken"), counted_as("communication"):
        device.queued += 1
        raise OSError("broken")
    device.queued += 2
    assert clock.read() == pytest.approx({"communication": 1.0, "forward": 2.0})


def test_without_a_step_nothing_is_counted(clock: StepClock, device: Device) -> None:
    clock.enter("forward")
    clock.enter(None)
    assert module._running is None
    queue_as(device, "communication", 1)
    assert clock.read() == {"forward": 0.0}


def test_on_the_host_every_moment_is_in_one_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 1000, 3))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(now))
    clock = StepClock(torch.device("cpu"))
    clock.enter("forward")
    with counted_as("mma"):
        pass
    clock.enter(None)
    assert isinstance(clock._spare[0], HostMark)
    assert clock.read() == {"forward": 6.0, "mma": 3.0}
