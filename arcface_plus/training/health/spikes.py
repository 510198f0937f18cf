"""Notice a step whose loss is far above those before it, without asking at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arcface_plus.checkpoints.parts import Part, Stored

HISTORY = 64  # steps that a loss is compared with; as many pass before the next spike is named
# A loss is a spike where it is above the median by more than each of these: robust standard
# deviations, shares of the median, and nats. Ordinary curves, from which docs/training_health.md
# has the largest rises, stay below.
_DEVIATIONS, _SHARE, _NATS = 8.0, 1.0, 1.0


class Spike(NamedTuple):
    """The first spike since the last look: its step, its loss, the median loss before it."""

    step: int
    loss: float
    usual: float


class LossSpikes(Part):
    """Compares each step's classification loss with the median of the 64 steps before it.

    Penalties are left out: they are bounded, and MMA's is negative.
    """

    def __init__(self, device: torch.device) -> None:
        self.recent = torch.full((HISTORY,), math.inf, dtype=torch.float64, device=device)
        # the first spike since the last look (−1: none), the last spike
        self.steps = torch.tensor([-1, -HISTORY], dtype=torch.int64, device=device)
        self.first = torch.zeros(2, dtype=torch.float64, device=device)  # its loss, the median

    def observe(self, step: int, loss: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Take the ``loss`` () of a step; a skipped one (``skip`` () is 1) counts for nothing.

        Returns whether () it is the first spike since the last look, and the median () before it.
        """
        loss, counts = loss.detach().double(), ~skip.bool()
        usual = _median(self.recent)
        deviation = 1.4826 * _median((self.recent - usual).abs())
        rise = torch.maximum(_DEVIATIONS * deviation, _SHARE * usual).clamp_min(_NATS)
        # False until the history is full enough for its median to be finite.
        spike = counts & (loss > usual + rise) & (self.steps[1] <= step - HISTORY)
        first = spike & (self.steps[0] < 0)
        self.first = torch.where(first, torch.stack([loss, usual]), self.first)
        self.steps = torch.where(torch.stack([first, spike]), step, self.steps)
        at = step % HISTORY
        self.recent[at] = torch.where(counts, loss, self.recent[at])
        return first, usual

    def look(self) -> Spike | None:
        """Return the first spike since the last look (a host synchronisation), and forget it."""
        step = int(self.steps[0])
        if step < 0:
            return None
        self.steps[0] = -1
        return Spike(step, *self.first.tolist())

    def numbers(self) -> dict[str, Any]:
        recent = [loss if math.isfinite(loss) else None for loss in self.recent.tolist()]
        return {"losses": {"recent": recent, "last_spike": int(self.steps[1])}}

    def restore(self, tensors: Mapping[str, Stored], numbers: Mapping[str, Any]) -> None:
        kept = numbers.get("losses")
        if kept is None:  # a checkpoint from before: the history begins anew
            return
        recent = [math.inf if loss is None else loss for loss in kept["recent"]]
        self.recent.copy_(torch.tensor(recent, dtype=torch.float64))
        self.steps.copy_(torch.tensor([-1, kept["last_spike"]]))


def _median(values: Tensor) -> Tensor:
    """Return the upper median () of ``values`` (n,); ``torch.median`` has no deterministic form."""
    return values.sort().values[len(values) // 2]
