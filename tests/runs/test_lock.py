"""One run folder, one run: also across processes, also after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import torch

from arcface_plus.distributed import World
from arcface_plus.runs import lock as run_lock
from arcface_plus.runs.lock import LOCK, RunLock
from arcface_plus.runs.train import train

WORLD = World(rank=0, size=1, device=torch.device("cpu"))
# Takes the lock as a run does; its child, as a worker process of a run, outlives it.
HOLDER = """
import os, sys, time
from pathlib import Path
import torch
from arcface_plus.distributed import World
from arcface_plus.runs.lock import RunLock
lock = RunLock(Path(sys.argv[1]), World(rank=0, size=1, device=torch.device("cpu")))
lock.take_if_used()
lock.take()
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock of ``folder`` in another process, which has a child."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        yield holder
    finally:
        holder.kill()
        holder.wait()
        os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_a_run_in_training_is_refused_until_its_process_dies(tiny: Path) -> None:
    folder = train(tiny)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != LOCK}
    with held(folder) as holder:
        words = rf"runs/tiny is being trained by process {holder.pid} on .*--name"
        for options in ({"resume": "auto"}, {"overwrite": True}, {}):
            with pytest.raises(ValueError, match=words):
                train(tiny, **options)
        assert {
            p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != LOCK
        } == before
        holder.kill()
        holder.wait()
        train(tiny, resume="auto")  # though the child of the killed process is alive
        train(tiny, overwrite=True)


def test_two_that_begin_the_same_run(tmp_path: Path) -> None:
    """Both found no run; the second must not go on from what it found."""
    folder = tmp_path / "run"
    first, second = RunLock(folder, WORLD), RunLock(folder, WORLD)
    for each in (first, second):
        each.take_if_used()
        assert not folder.exists()
    first.take()
    first.take()  # held already
    first.close()
    with pytest.raises(ValueError, match=rf"was begun by process {os.getpid()} on .* same time"):
        second.take()
    second.take_if_used()  # another start finds the run, and may look at it
    second.take()
    second.close()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine: 1")
    with closing(RunLock(tmp_path, WORLD)) as lock:
        lock.take_if_used()
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch) -> None:
    def none(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run_lock.fcntl, "lockf", none)
    with closing(RunLock(tmp_path, WORLD)) as lock:
        lock.take()
        assert lock.warning is not None and "has no locks (Function not impl" in lock.warning


@pytest.mark.parametrize(
    "content", ["", "{", '{"pid": "x", "host": 3}', "[]", '{"pid": 1e999, "host": 1}']
)
def test_what_a_lock_file_says_is_but_words(content: str) -> None:
    assert run_lock._named(content) == "another process"
    assert run_lock._named(json.dumps({"pid": 3, "host": "a"})) == "process 3 on a"
    assert run_lock._named('{"pid": 3, "host": "\\u001b[2J"}') == r"process 3 on '\x1b[2J'"
