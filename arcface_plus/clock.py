"""Where the time of training steps goes, counted without waiting for the device."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch


class HostMark:
    """A moment on the host's clock, with the methods of ``torch.cuda.Event``."""

    def record(self) -> None:
        self.at = time.perf_counter()

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: HostMark) -> float:
        return 1000 * (later.at - self.at)


class StepClock:
    """Sums the seconds of each phase of a step since the last ``read``.

    On the CPU by the host's clock. On a GPU by events in its queue of work: what it did, or waited
    for, between two of them. Events that are done are summed on the way; only ``read`` waits.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.phase: str | None = None
        self._sums: dict[str, float] = {}
        self._marks: deque[tuple[str | None, Any]] = deque()
        self._spare: list[Any] = []

    def enter(self, phase: str | None) -> None:
        """Count time as ``phase`` from now on; None: as nothing."""
        global _running
        mark = self._spare.pop() if self._spare else self._new_mark()
        mark.record()
        self._marks.append((phase, mark))
        self.phase, _running = phase, None if phase is None else self
        self._sum_finished()

    def read(self) -> dict[str, float]:
        """Return the seconds of every phase, and begin anew; a GPU is waited for."""
        self.enter(self.phase)
        self._marks[-1][1].synchronize()
        self._sum_finished()
        sums, self._sums = self._sums, {}
        return sums

    def _new_mark(self) -> Any:
        return torch.cuda.Event(enable_timing=True) if self.on_gpu else HostMark()

    def _sum_finished(self) -> None:
        while len(self._marks) > 1 and self._marks[1][1].query():
            phase, mark = self._marks.popleft()
            if phase is not None:
                seconds = mark.elapsed_time(self._marks[0][1]) / 1000
                self._sums[phase] = self._sums.get(phase, 0.0) + seconds
            self._spare.append(mark)


# The clock of the step that this process is in. Autograd's threads call collectives too, while the
# thread that trains waits for them; those see no context variable of it.
_running: StepClock | None = None


@contextlib.contextmanager
def counted_as(phase: str) -> Iterator[None]:
    """Count the block as ``phase`` of the training step that it is part of, if of any."""
    clock = _running
    if clock is None:
        yield
        return
    outer = clock.phase
    clock.enter(phase)
    try:
        yield
    finally:
        clock.enter(outer)
