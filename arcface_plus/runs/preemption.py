"""A run that is asked to stop before its end: by a batch system, a launcher or the keyboard."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from arcface_plus.training.log.monitor import Monitor
from arcface_plus.watch import Watch

MARKER = "requeue"
# SIGUSR1: launchers take SIGTERM for themselves and give their processes 30 s.
_ASK = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_TWICE = 1.0  # seconds; a launcher passes on the Ctrl-C that its ranks got from the terminal too


class Stopped(SystemExit):
    """A run was asked to stop, has saved its state and can be resumed; ``code`` 0, or 130 after
    Ctrl-C.
    """


class StopRequest:
    """The signal that this rank got, if any."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.number, self.at = watch, 0, 0.0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Ask all ranks to stop; a second Ctrl-C interrupts this one at once."""
        now = time.monotonic()
        if number == self.number == signal.SIGINT and now - self.at > _TWICE:
            raise KeyboardInterrupt
        self.number, self.at = number, self.at if number == self.number else now
        self.watch.ask_to_stop()

    @property
    def exit_code(self) -> int:
        return 130 if self.number == signal.SIGINT else 0

    def mark(self, folder: Path, step: int, monitor: Monitor) -> None:
        """Say on rank 0 what happened; leave the file that tells a batch script to requeue.

        Not where the user pressed Ctrl-C.
        """
        if monitor.enabled and self.exit_code == 0:
            note = f"stopped at step {step}; --resume auto continues\n"
            (folder / MARKER).write_text(note, encoding="utf-8")
        monitor.say(f"asked to stop: saved step {step}; --resume auto continues")


@contextmanager
def stops_on_signals(watch: Watch) -> Iterator[StopRequest]:
    """Let SIGTERM, SIGUSR1 and Ctrl-C stop the ranks of ``watch`` at a step, while the block runs.

    Only the main thread of a process gets signals; elsewhere they do what they did before.
    """
    request = StopRequest(watch)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.handle) for number in _ASK}
    failed = True
    try:
        yield request
        failed = False
    finally:
        # A launcher sends SIGTERM to the ranks that a failure leaves: it must not end one of them
        # before it has said what it knows.
        if watch.size == 1 or not failed:
            for number, handler in before.items():
                signal.signal(number, handler)


def unmark(folder: Path) -> None:
    """Remove the marker of a run that is being continued."""
    (folder / MARKER).unlink(missing_ok=True)
