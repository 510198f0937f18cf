"""One run folder is trained by one run at a time."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import IO

from arcface_plus.distributed import World, broadcast_object
from arcface_plus.runs.folder import LOCK, is_run


class RunLock:
    """The right to train the run folder ``folder``, held by rank 0 until ``close`` or its death.

    A POSIX record lock on the file ``.lock``, which stays in the folder: the system drops the lock
    with the process, however it ends. Not flock(2), which worker processes inherit: those of a
    killed rank would hold it for seconds. ``warning``: what to say where the file system has no
    locks. Called by all ranks together.
    """

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self.warning: str | None = None
        self._file: IO[str] | None = None

    def take_if_used(self) -> None:
        """Take the lock where there is a run in the folder already, before it is looked at.

        A folder that is no run is left as it is. Raises as ``take`` does.
        """
        self._on_main((self.folder / LOCK).is_file() or is_run(self.folder), late=False)

    def take(self) -> None:
        """Take the lock, unless it is held; make the folder where it does not exist.

        Raises ValueError, on all ranks, where another process holds it, or has begun this run
        since ``take_if_used``.
        """
        self._on_main(self._file is None and self.warning is None, late=True)

    def close(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _on_main(self, wanted: bool, *, late: bool) -> None:
        problem: Exception | None = None
        if self.world.is_main and wanted:
            try:
                self._take(late=late)
            except (OSError, ValueError) as error:
                problem = error
        problem = broadcast_object(problem, self.world.control)
        if problem is not None:
            raise problem

    def _take(self, *, late: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = (self.folder / LOCK).open("a+", encoding="utf-8")
        file.seek(0)
        holder = file.read(1000)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.close()
            raise ValueError(
                f"{self.folder} is being trained by {_named(holder)}. Wait for that run or stop "
                "it, or choose another --name."
            ) from None
        except OSError as error:
            file.close()
            self.warning = (
                f"warning: the file system of {self.folder} has no locks ({error.strerror}): see "
                "to it that no second process trains this run"
            )
            return
        if late and holder:
            file.close()
            raise ValueError(
                f"{self.folder} was begun by {_named(holder)} at the same time. To continue that "
                "run, start again with --resume auto; or choose another --name."
            )
        file.truncate(0)
        json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
        file.flush()
        self._file = file


def _named(holder: str) -> str:
    try:
        stated = json.loads(holder)
        host = str(stated["host"])[:100]
        where = host if host.isprintable() else ascii(host)
        return f"process {int(stated['pid'])} on {where}"
    except (ValueError, TypeError, KeyError, OverflowError):
        return "another process"
