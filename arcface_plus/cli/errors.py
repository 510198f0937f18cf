"""Refuse what does not go together; turn errors into a message and an exit code (1, 2)."""

from __future__ import annotations

import errno
import multiprocessing
import os
import sys
import traceback
from collections.abc import Container, Mapping
from multiprocessing.process import BaseProcess
from typing import NoReturn

_ADVICE = {
    errno.ENOSPC: ". Make room on that disk, or choose a place on another one.",
    errno.EDQUOT: ". Make room within the quota, or choose another place.",
    errno.EIO: ". The disk or the network file system failed: look at it, then start again.",
    errno.EROFS: ". Nothing can be written there; choose another place.",
}


def refuse(reasons: Mapping[str, bool]) -> None:
    """Raise ValueError with the first of ``reasons`` that holds: what is wrong → whether it is."""
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(reason)


def exit_code_for(error: Exception) -> int:
    """Print ``error`` to standard error and return its exit code.

    Bad input (ValueError, a missing or unreadable file, the missing package of an extra) is a
    message and 2. A run that broke down in a way we foresaw is a message and 1. Anything else is a
    fault of ours: the traceback, and 1.
    """
    rank = f"[rank {os.environ['RANK']}] " if "RANK" in os.environ else ""
    if memory := _memory_advice(error):
        _say(f"{rank}error: {memory}")
        return 1
    bad_path = FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError
    bad_input = ValueError | ModuleNotFoundError | bad_path
    fault = ZeroDivisionError | OverflowError  # arithmetic of ours, not a loss that is not finite
    foreseen = ValueError | ArithmeticError | OSError | ImportError
    if isinstance(error, fault) or not isinstance(error, foreseen):
        lines = "".join(traceback.format_exception(error)).splitlines()
        _say("\n".join(rank + line for line in lines))
        return 1
    advice = _ADVICE.get(error.errno or 0, "") if isinstance(error, OSError) else ""
    _say(f"{rank}error: {error}{advice}")
    return 2 if isinstance(error, bad_input) else 1


def _say(message: str) -> None:
    # In one write: lines of several ranks would run into one another.
    print(message + "\n", end="", file=sys.stderr, flush=True)  # noqa: T201


def _memory_advice(error: Exception) -> str | None:
    """Return what to do where ``error`` says that memory ran out; torch has no class for its own
    allocator on the host.
    """
    first = str(error).partition("\n")[0]
    if type(error).__name__ == "OutOfMemoryError":
        return (
            f"the GPU's memory is full: {first} Lower the batch (--train.global_batch, "
            "--batch-size), raise --train.accumulate, set --train.precision bf16 or "
            "--model.checkpoint_gradients true."
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in first:
        return (
            f"the machine's memory is full: {first or 'an allocation failed.'} Lower "
            "--data.workers, or the batch (--train.global_batch, --batch-size)."
        )
    return None


def leave(code: int, not_ours: Container[BaseProcess] = ()) -> NoReturn:
    """End the process with ``code``; ``not_ours`` are child processes of whoever called us.

    A rank that failed ends at once. What Python does at its end could wait for ever: for worker
    processes that hang in a read, for ranks that do not come (gloo's and NCCL's threads).
    """
    workers = [child for child in multiprocessing.active_children() if child not in not_ours]
    distributed = sys.modules.get("arcface_plus.distributed")
    joined = distributed is not None and distributed.world_size() > 1
    if code and (workers or joined):
        for worker in workers:
            worker.kill()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
