"""Align photographs in several processes, in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection

import cv2

from arcface_plus.data.faces.outcomes import Outcome
from arcface_plus.data.faces.photograph import Job

_AT_ONCE = 8  # photographs handed to a process together


def run_job(
    job: Job, photographs: Sequence[str], crops: Sequence[str], workers: int
) -> Iterator[Outcome]:
    """Yield what becomes of each photograph, in order; one worker is this process itself.

    Raises OSError where a process dies, and what ``job.run`` raises.
    """
    workers = min(workers, -(-len(photographs) // _AT_ONCE))
    if workers <= 1:
        yield from map(job.run, photographs, crops)
        return
    context = multiprocessing.get_context("spawn")  # threads of networks do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start) as pool:
        try:
            yield from pool.map(job.run, photographs, crops, chunksize=_AT_ONCE)
        except BrokenProcessPool as error:
            raise OSError(
                "a process that aligned photographs died, perhaps for want of memory; run the "
                "command again, with fewer workers: what is done stays done"
            ) from error


def _start() -> None:
    """Prepare a worker: one thread, stopped by its parent alone, gone when the parent is gone."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
