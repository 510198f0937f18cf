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
    return _train_here(waiting, how) if how.jobs == 1 else _train_beside(waiting, how)


def check_trained(failures: Sequence[str]) -> None:
    """Raise ChildProcessError that lists ``failures`` of ``train_unfinished``, if any."""
    if failures:
        raise ChildProcessError(
            f"{len(failures)} run(s) broke down; the table has the others. The same command tries "
            "them again:\n" + "\n".join(failures)
        )


def _train_here(waiting: list[Unfinished], how: Training) -> list[str]:
    failures = []
    while waiting:
        taken = _take(waiting, how)
        if taken is None:
            time.sleep(_POLL_SECONDS)
            continue
        run, claim = taken
        with claim:
            try:
                run_training(run.config, run.words, resume="auto")
            except ArithmeticError as error:  # the loss is not finite: of this run alone
                failures.append(f"{run.folder.name}: {error}")
    return failures


def _train_beside(waiting: list[Unfinished], how: Training) -> list[str]:
    failures: list[str] = []
    running: dict[int, _Process] = {}
    try:
        while waiting or running:
            for place in [place for place, process in running.items() if process.ended]:
                process = running.pop(place)
                how.say(f"{process.run.folder.name}: {process.outcome or 'finished'}")
                if process.outcome:
                    failures.append(f"{process.run.folder.name}: {process.outcome}")
            free = [place for place in range(how.jobs) if place not in running]
            taken = _take(waiting, how) if free else None
            if taken is None:
                time.sleep(_POLL_SECONDS)
                continue
            running[free[0]] = _Process(*taken, place=free[0], jobs=how.jobs)
            how.say(f"{taken[0].folder.name}: started, {len(waiting)} more to start")
    finally:
        for process in running.values():  # where this study itself is interrupted
            process.stop()
    return failures


def _take(waiting: list[Unfinished], how: Training) -> tuple[Unfinished, IO[str]] | None:
    """Take the first run that nobody trains out of ``waiting``, with a lock on it, or None.

    The lock is the open file's: processes that are started with it hold it too, so that what an
    interrupted study leaves behind is not trained a second time. What has ended meanwhile is
    dropped.
    """
    for run in list(waiting):
        path = run.folder.parent / ".locks" / run.folder.name
        path.parent.mkdir(parents=True, exist_ok=True)
        claim = path.open("w", encoding="utf-8")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            claim.close()
            continue
        waiting.remove(run)
        if run.finished:
            claim.close()
            how.say(f"{run.folder.name}: finished by another process")
            continue
        return run, claim
    return None


class _Process:
    """A run that trains in a process of its own, at one of ``jobs`` places of this machine."""

    def __init__(self, run: Unfinished, claim: IO[str], *, place: int, jobs: int) -> None:
        self.run, self.log = run, run.folder.with_name(f"{run.folder.name}.log")
        command = [sys.executable, "-m", "arcface_plus", "train", str(run.config), *run.words]
        with self.log.open("ab") as log, claim:
            self._process = subprocess.Popen(
                [*command, "--resume", "auto"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | share_of_machine(place, jobs),
                pass_fds=[claim.fileno()],
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
