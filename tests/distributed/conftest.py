"""Start real gloo processes and collect what each rank returns."""

from __future__ import annotations

import os
import tempfile
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
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    try:
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
    with tempfile.TemporaryDirectory() as folder:
        # Not a torch.multiprocessing queue: results must outlive the process that made them.
        results = context.Manager().Queue()
        processes = [
            context.Process(
                target=_entry,
                args=(r, world_size, os.path.join(folder, "store"), fn, args, results),
            )
            for r in range(world_size)
        ]
        for process in processes:
            process.start()
        collected: dict[int, Any] = {}
        for _ in processes:
            rank, value, error = results.get(timeout=300)
            if error is not None:
                for process in processes:
                    process.terminate()
                raise AssertionError(f"rank {rank} of {world_size} failed:\n{error}")
            collected[rank] = value
        for process in processes:
            process.join(timeout=60)
    return [collected[r] for r in range(world_size)]


@pytest.fixture
def run_ranks() -> Callable[..., list[Any]]:
    return start_ranks
