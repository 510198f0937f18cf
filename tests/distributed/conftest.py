"""Start real gloo processes and collect what each rank returns."""

from __future__ import annotations

import os
import queue
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _entry(
    rank: int, size: int, store: str, fn: Callable[..., Any], args: tuple, results: Any
) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
        # A rank that leaves at once would close connections that the others are still making.
        dist.barrier()
        results.put((rank, fn(rank, *args), None))
    except BaseException:  # the parent re-raises it with the rank's own traceback
        results.put((rank, None, traceback.format_exc()))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def start_ranks(fn: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
    """Run ``fn(rank, *args)`` in ``world_size`` processes joined by gloo; return their results."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed"])
    with tempfile.TemporaryDirectory() as folder, context.Manager() as manager:
        # Not a torch.multiprocessing queue: results must outlive the process that made them.
        results = manager.Queue()
        processes = [
            context.Process(
                target=_entry,
                args=(r, world_size, os.path.join(folder, "store"), fn, args, results),
            )
            for r in range(world_size)
        ]
        for process in processes:
            process.start()
        try:
            collected = dict(_next_result(results, processes) for _ in processes)
        finally:
            for process in processes:
                process.join(timeout=10)
                process.terminate()
    return [collected[r] for r in range(world_size)]


def _next_result(results: Any, processes: list[Any]) -> tuple[int, Any]:
    """Wait for a rank's result; fail with its traceback, or where a rank died without a word."""
    began = time.monotonic()
    while True:
        try:
            rank, value, error = results.get(timeout=2)
        except queue.Empty:
            died = [r for r, p in enumerate(processes) if p.exitcode]
            if died or time.monotonic() - began > 300:
                raise AssertionError(f"ranks {died} died, or nobody answered in time") from None
            continue
        if error is not None:
            for process in processes:
                process.terminate()
            raise AssertionError(f"rank {rank} of {len(processes)} failed:\n{error}")
        return rank, value


@pytest.fixture
def run_ranks() -> Callable[..., list[Any]]:
    return start_ranks
