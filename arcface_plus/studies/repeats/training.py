"""Train the runs of a study that are unfinished: one in this process, or several at a time."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import torch

from arcface_plus.runs.train import train as run_training
from arcface_plus.studies.repeats.runs import Run, Unfinished, unfinished_of

_POLL_SECONDS = 0.2


class Training(NamedTuple):
    """How a study trains: settings of all its runs, how many at a time, where it says so.

    Without ``enabled`` nothing is trained: the table is of the runs that are finished.
    """

    overrides: Sequence[str] = ()
    jobs: int = 1
    enabled: bool = True
    say: Callable[[str], None] = lambda line: None


def train_unfinished(wanted: Iterable[Run], runs: Path, how: Training) -> list[str]:
    """Train (or continue) those of ``wanted`` that have not ended in ``runs``.

    One job: in this process. More: each run in a process of its own, which has its share of the
    cores and, where there are GPUs, one of them, and writes to ``runs/NAME.log``. A run that
    another study is training is waited for, not trained again. Returns a line for every run that
    broke down; the others are trained all the same. Raises ValueError, before any is trained, as
    ``unfinished_of``, and where there are overrides but no training.
    """
    if not how.enabled:
        if how.overrides:
            raise ValueError(
                f"{' '.join(how.overrides)} would change runs, but without --train none runs."
            )
        return []
    if "RANK" in os.environ:
        raise ValueError(
            "A study trains its runs one by one or by --jobs, not under torchrun: start it alone, "
            "or start the commands that --list prints."
        )
    waiting = unfinished_of(wanted, runs, how.overrides)
    queue = _Queue(waiting, how.say)
    return _train_here(queue) if how.jobs == 1 else _train_beside(queue, how)


def check_trained(failures: Sequence[str]) -> None:
    """Raise ChildProcessError that lists ``failures`` of ``train_unfinished``, if any."""
    if failures:
        raise ChildProcessError(
            f"{len(failures)} run(s) broke down; the table has the others. The same command tries "
            "them again:\n" + "\n".join(failures)
        )


class _Queue:
    """Runs to train, each of which one process alone may take.

    The lock is the open file's: processes that are started with it hold it too, so that what a
    killed study leaves running is not trained a second time.
    """

    def __init__(self, waiting: list[Unfinished], say: Callable[[str], None]) -> None:
        self.waiting, self._say, self._told = waiting, say, set[str]()

    def take(self) -> tuple[Unfinished, IO[str]] | None:
        """Take the first run that nobody trains, and its lock; None where there is none.

        What has ended meanwhile is dropped.
        """
        for run in list(self.waiting):
            name = run.folder.name
            path = run.folder.parent / ".locks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("w", encoding="utf-8")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                if name not in self._told:
                    self._say(f"{name}: another process trains it")
                self._told.add(name)
                continue
            self.waiting.remove(run)
            if run.finished:
                lock.close()
                self._say(f"{name}: finished by another process")
                continue
            return run, lock
        return None


def _train_here(queue: _Queue) -> list[str]:
    failures = []
    while queue.waiting:
        taken = queue.take()
        if taken is None:
            time.sleep(_POLL_SECONDS)
            continue
        run, lock = taken
        with lock:
            try:
                run_training(run.config, run.words, resume="auto")
            except ArithmeticError as error:  # the loss is not finite: of this run alone
                failures.append(f"{run.folder.name}: {error}")
    return failures


def _train_beside(queue: _Queue, how: Training) -> list[str]:
    failures: list[str] = []
    running: dict[int, _Process] = {}
    try:
        while queue.waiting or running:
            for place in [place for place, process in running.items() if process.ended]:
                process = running.pop(place)
                name, outcome = process.run.folder.name, process.outcome
                how.say(f"{name}: {outcome or 'finished'}")
                if outcome:
                    failures.append(f"{name}: {outcome}")
            free = [place for place in range(how.jobs) if place not in running]
            taken = queue.take() if free else None
            if taken is None:
                time.sleep(_POLL_SECONDS)
                continue
            running[free[0]] = _Process(*taken, place=free[0], jobs=how.jobs)
            how.say(f"{taken[0].folder.name}: started, {len(queue.waiting)} more to start")
    finally:
        for process in running.values():  # where this study itself is interrupted
            process.stop()
    return failures


class _Process:
    """A run that trains in a process of its own, at one of ``jobs`` places of this machine."""

    def __init__(self, run: Unfinished, lock: IO[str], *, place: int, jobs: int) -> None:
        self.run, self.log = run, run.folder.with_name(f"{run.folder.name}.log")
        command = [sys.executable, "-m", "arcface_plus", "train", str(run.config), *run.words]
        with self.log.open("ab") as log, lock:
            self._process = subprocess.Popen(
                [*command, "--resume", "auto"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | share_of_machine(place, jobs),
                pass_fds=[lock.fileno()],
            )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def outcome(self) -> str:
        """How the run broke down, empty where it ended well."""
        if self._process.returncode == 0 and self.run.finished:
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it wrote nothing")
        return f"exit code {self._process.returncode}, {last} (see {self.log})"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def share_of_machine(place: int, jobs: int) -> dict[str, str]:
    """Return what the environment of the run at ``place`` of ``jobs`` says: threads, and its GPU.

    Runs share a GPU where there are more jobs than GPUs.
    """
    share = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // jobs))}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return share | ({"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {})
