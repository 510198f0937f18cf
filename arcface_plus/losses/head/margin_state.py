"""Running averages and learned numbers of a margin loss: the same on every rank."""

from __future__ import annotations

import torch
from torch import nn

from arcface_plus.losses.head.plan import StepPlan
from arcface_plus.losses.margins.base import MarginLoss, Samples


class MarginState(nn.Module):
    """Holds what ``margin`` keeps between steps (buffers) and what it learns (parameters)."""

    def __init__(self, margin: MarginLoss | None, num_classes: int, sample_rate: float) -> None:
        super().__init__()
        self.margin = margin
        if margin is None:
            return
        for name, value in margin.initial_state(num_classes, sample_rate).items():
            self.register_buffer(name, torch.tensor(value))
        for name, value in margin.initial_learned(num_classes, sample_rate).items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value)))

    def summary(self) -> dict[str, float]:
        """Return all of them as plain numbers, to be shown; the host waits for the device."""
        return {
            name: value.item() for name, value in (*self.named_buffers(), *self.named_parameters())
        }

    @torch.no_grad()
    def observe(self, samples: Samples, plan: StepPlan) -> None:
        """Move the running averages by a micro-batch of all ranks; they then serve to score it.

        A step moves them once: from where they stood before it, by all its samples so far. Where
        that gives no finite number (the deviation of one sample), they stay. In eval mode they do
        not move.
        """
        running = dict(self.named_buffers())
        if self.margin is None or not running or not self.training:
            return
        observed = self.margin.observed(samples)
        if observed is None:
            return
        if plan.state is None:
            plan.state = {name: value.clone() for name, value in running.items()}
        plan.observed.append(observed)
        for name, value in self.margin.after_step(plan.state, torch.cat(plan.observed)).items():
            kept = running[name]
            kept.copy_(torch.where(torch.isfinite(value), value, kept))
