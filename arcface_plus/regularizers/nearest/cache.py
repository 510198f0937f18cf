"""Keep nearest-neighbour indices for several steps: an approximation, and a stated one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class NeighbourCache:
    """Search for neighbours every ``refresh_every`` calls and reuse them in between.

    Between searches MMA is taken over the neighbours last found. The angle to an old neighbour is
    never smaller than the angle to the nearest row, so the penalty is then at or below (more
    negative than) the exact one, and pairs that have since come closer go unseen until the next
    search. ``refresh_every=1`` is exact.

    One cache serves one weight (or this rank's shard of it). Its state belongs into checkpoints.
    """

    def __init__(self, refresh_every: int) -> None:
        if refresh_every < 1:
            raise ValueError(f"refresh_every is {refresh_every}, but must be at least 1.")
        self.refresh_every = refresh_every
        self._index: Tensor | None = None
        self._uses = 0

    def lookup(self, rows: int, search: Callable[[], Tensor]) -> Tensor:
        """Return the indices (``rows``,) in force, from ``search`` where they are due.

        Ranks that share a cache's schedule search in the same calls.
        """
        due = self._index is None or self._uses >= self.refresh_every
        if due:
            self._index, self._uses = search(), 0
        assert self._index is not None
        if self._index.shape[0] != rows:
            raise ValueError(
                f"the cache holds neighbours of {self._index.shape[0]} rows, but the weight has "
                f"{rows}; use one NeighbourCache per weight."
            )
        self._uses += 1
        return self._index

    def state_dict(self) -> dict[str, Any]:
        """Return the indices (empty before the first search) and how often they were used."""
        index = torch.empty(0, dtype=torch.int64) if self._index is None else self._index
        return {"index": index, "uses": self._uses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what ``state_dict`` returned, on a rank that holds the same rows."""
        self._index = state["index"] if state["index"].numel() else None
        self._uses = int(state["uses"])
