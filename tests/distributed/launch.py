"""Start real gloo processes, as torchrun would, and collect what each rank returns."""

from __future__ import annotations

import io
import os
import pickle
import runpy
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

SILENCE = 300  # seconds without an answer of any rank


def _entry(rank: int, size: int, store: str, work: bytes, answer: Connection) -> None:
    torch.set_num_threads(1)
    try:
        fn, args = pickle.loads(work)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
        # A rank that leaves at once would close connections that the others are still making.
        dist.barrier()
        said = (fn(rank, *args), None)
    except BaseException:  # the parent re-raises it with the rank's own traceback
        said = (None, traceback.format_exc())
    # Pickled here: torch's own pickler would share tensors, which end with the process.
    answer.send_bytes(pickle.dumps(said))
    if dist.is_initialized():
        dist.destroy_process_group()


def _context() -> Any:
    """Return where ranks start: copies of a process that has imported all they need, only once.

    That is what the tests collected so far have imported, and what torch imports at first use.
    """
    context = mp.get_context("forkserver")
    ours = sorted(name for name in sys.modules if name.startswith("arcface_plus."))
    context.set_forkserver_preload(
        ["pytest", "torch", "torch._dynamo", "torch.utils.tensorboard", *ours]
    )
    return context


def start_ranks(fn: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
    """Run ``fn(rank, *args)`` in ``world_size`` processes joined by gloo; return their results."""
    context, work = _context(), pickle.dumps((fn, args))
    processes, answers = [], []
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        try:
            for rank in range(world_size):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_entry, args=(rank, world_size, store, work, theirs)
                )
                process.start()
                theirs.close()  # the rank has the only copy: its end is the end of the pipe
                processes.append(process)
                answers.append(ours)
            return _collect(answers)
        except AssertionError:
            for process in processes:
                process.terminate()
            raise
        finally:
            for process in processes:
                process.join(timeout=10)
                process.terminate()


def _collect(answers: list[Connection]) -> list[Any]:
    """Return every rank's value; fail with the traceback of the first that failed, or died."""
    values: dict[int, Any] = {}
    while len(values) < len(answers):
        ready = wait([a for r, a in enumerate(answers) if r not in values], timeout=SILENCE)
        assert ready, f"no rank answered in {SILENCE} s; {sorted(values)} had"
        for answer in ready:
            rank = answers.index(answer)
            try:
                value, error = pickle.loads(answer.recv_bytes())
            except EOFError:
                raise AssertionError(f"rank {rank} died without a word") from None
            assert error is None, f"rank {rank} of {len(answers)} failed:\n{error}"
            values[rank] = value
    return [values[rank] for rank in range(len(answers))]


def join_as_under_torchrun(rank: int, runs: int) -> list[dict[str, str]]:
    """Leave this group and return, for each of ``runs``, the environment that torchrun would set.

    Each has a store of its own, there before the run; the system gave it the port it listens on.
    """
    size = dist.get_world_size()
    if rank == 0:
        _STORES.extend(dist.TCPStore("127.0.0.1", 0, is_master=True) for _ in range(runs))
    ports = [[store.port for store in _STORES]]
    dist.broadcast_object_list(ports)
    dist.destroy_process_group()
    shared = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    shared |= {"TORCHELASTIC_RESTART_COUNT": "0"}
    return [{**shared, "MASTER_PORT": str(port)} for port in ports[0]]


_STORES: list[dist.TCPStore] = []  # kept as long as the process


def run_script(rank: int, script: str, words: list[str]) -> tuple[str, str, int]:
    """Run a script as ``torchrun`` runs it; return what it wrote and its exit code."""
    (environment,) = join_as_under_torchrun(rank, 1)
    os.environ |= environment
    sys.argv = [script, *words]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return out.getvalue(), err.getvalue(), code
