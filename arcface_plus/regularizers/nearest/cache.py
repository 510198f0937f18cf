"""Keep nearest-neighbour indices for several steps: an approximation, and a stated one."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class NeighbourCache:
    """Search for neighbours every ``refresh_every`` calls and reuse them in between.

    Between searches MMA is taken over the neighbours last found. The angle to an old neighbour is
    never smaller than the angle to the nearest row, so the penalty is then at or below (more
    negative than) the exact one, and pairs that have since come closer go unseen until the next
    search. ``refresh_every=1`` is exact.

    One cache serves one weight (or this rank's shard of it). ``index`` (n,), None before the first
    search, and ``uses``, how often it was used, belong into checkpoints.
    """

    def __init__(self, refresh_every: int) -> None:
        if refresh_every < 1:
            raise ValueError(f"refresh_every is {refresh_every}, but must be at least 1.")
        self.refresh_every = refresh_every
        self.index: Tensor | None = None
        self.uses = 0

    def lookup(self, rows: int, search: Callable[[], Tensor]) -> Tensor:
        """Return the indices (``rows``,) in force, from ``search`` where they are due.

        Ranks that share a cache's schedule search in the same calls.
        """
        if self.index is None or self.uses >= self.refresh_every:
            self.index, self.uses = search(), 0
        if self.index.shape[0] != rows:
            raise ValueError(
                f"the cache holds neighbours of {self.index.shape[0]} rows, but the weight has "
                f"{rows}; use one NeighbourCache per weight."
            )
        self.uses += 1
        return self.index
