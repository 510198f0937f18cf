"""One piece of work at a time in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Runs a piece of work beside the caller; its error is raised where it is waited for.

    The thread is a daemon: a process that fails ends without it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin ``work``; the one before must have been waited for."""
        assert self._thread is None and self._error is None
        self._thread = threading.Thread(
            target=self._run, args=(work,), name=self._name, daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait for the work begun last; raise its error, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def ends_within(self, seconds: float) -> bool:
        """Wait at most ``seconds``; return whether the work has ended well. Raises nothing."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._error is None and not (self._thread and self._thread.is_alive())

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # raised again in ``wait``
            self._error = error
