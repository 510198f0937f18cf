"""Progress of long work: a bar on a terminal, a line every tenth elsewhere, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Count = Callable[[int, int], None]


@contextmanager
def counted(name: str, *, enabled: bool = True) -> Iterator[Count]:
    """Yield a function that shows ``(done, total)`` under ``name``."""
    from rich.console import Console  # here, because --help must answer at once
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, quiet=not enabled)
    if not console.is_terminal:
        shown = 0

        def line(done: int, total: int) -> None:
            nonlocal shown
            if done != shown and (done == total or done * 10 // total > shown * 10 // total):
                console.print(f"{name}: {done} of {total}", soft_wrap=True)
            shown = done

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
