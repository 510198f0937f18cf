"""Running averages and learned numbers of a margin loss: the same on every rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arcface_plus.losses.head.plan import StepPlan
from arcface_plus.losses.margins.base import (
    MarginLoss,
    Samples,
)


class MarginState(nn.Module):
    """Holds what ``margin`` keeps between steps (buffers) and what it learns (parameters)."""

    def __init__(self, margin: MarginLoss | None, num_classes: int, sample_rate: float) -> None:
        super().__init__()
        self.margin = margin
        if margin is None:
            return
        for name, value in margin.initial_state().items():
            self.register_buffer(name, torch.tensor(value))
        for name, value in margin.initial_learned(num_classes, sample_rate).items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value)))

    def running(self) -> dict[str, Tensor]:
        """Return the running averages () by name."""
        return dict(self.named_buffers())

    def learned(self) -> dict[str, nn.Parameter]:
        """Return the learned numbers () by name."""
        return dict(self.named_parameters())

    def summary(self) -> dict[str, float]:
        """Return both as plain numbers, to be shown; the host waits for the device."""
        return {name: value.item() for name, value in (self.running() | self.learned()).items()}

    @torch.no_grad()
    def observe(self, samples: Samples, plan: StepPlan) -> None:
        """Move the running averages by a micro-batch of all ranks; they then serve to score it.

        A step moves them once: from where they stood before it, by mean and deviation of all its
        samples so far. Where that gives no finite number, they stay. In eval mode they do not move.
        """
        running = self.running()
        if self.margin is None or not running or not self.training:
            return
        if plan.state is None:
            plan.state = {name: value.clone() for name, value in running.items()}
        mean, deviation = plan.statistics.add(self.margin.observed(samples))
        for name, value in self.margin.moved(plan.state, mean, deviation).items():
            kept = running[name]
            kept.copy_(torch.where(torch.isfinite(value), value, kept))
