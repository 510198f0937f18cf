"""torch.profiler for a few steady steps of a run: a trace and a table in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, schedule

from arcface_plus.distributed import World

# Steps of this process before those that count: cuDNN and the allocator settle, then the profiler.
FIRST, WARMUP = 5, 2
FOLDER, TRACE, TABLE = "profile", "trace.json.gz", "operators.txt"
ROWS = 40


def check_profile(steps: int | None, left: int) -> None:
    """Raise ValueError where ``steps`` cannot be traced in the ``left`` ones of a run."""
    needed = FIRST + WARMUP + (steps or 0)
    if steps is not None and needed > left:
        raise ValueError(
            f"--profile {steps} needs {needed} steps, {FIRST + WARMUP} of them before it begins, "
            f"but {left} are left to train; raise --train.steps or profile fewer."
        )


@contextlib.contextmanager
def profiled(
    folder: Path, steps: int | None, world: World, say: Callable[[str], None]
) -> Iterator[Callable[[], object]]:
    """Trace ``steps`` steps of rank 0; yield what is to be called after every step.

    ``folder``/profile gets a trace for chrome://tracing or ui.perfetto.dev and a table of the
    operators that take longest. None: nothing is traced.
    """
    if steps is None or not world.is_main:
        yield lambda: None
        return
    on_gpu = world.device.type == "cuda"

    def write(done: profile) -> None:
        target = folder / FOLDER
        target.mkdir(exist_ok=True)
        done.export_chrome_trace(str(target / TRACE))
        averages = done.key_averages()
        orders = ["self_cpu_time_total", *(["self_cuda_time_total"] if on_gpu else [])]
        tables = [f"{steps} steps\n"]
        tables += [averages.table(sort_by=order, row_limit=ROWS) for order in orders]
        (target / TABLE).write_text("\n".join(tables), encoding="utf-8")
        say(f"profile of {steps} steps: {target / TRACE} and {TABLE}")

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    plan = schedule(wait=FIRST, warmup=WARMUP, active=steps, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write) as running:
        yield running.step
