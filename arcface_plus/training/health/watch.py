"""One look at the numbers of the steps: what is not finite, what rose, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arcface_plus.losses.head.output import HeadOutput
from arcface_plus.training.health.forensics import LOSS_SPIKE, NOT_FINITE, Forensics
from arcface_plus.training.health.guard import FiniteGuard
from arcface_plus.training.health.spikes import HISTORY, LossSpikes
from arcface_plus.training.log.monitor import Monitor


class StepWatch:
    """Observes every step on the device, and says at log steps what was wrong with one."""

    def __init__(
        self, guard: FiniteGuard, spikes: LossSpikes, forensics: Forensics, monitor: Monitor
    ) -> None:
        self.guard, self.spikes = guard, spikes
        self.forensics, self.monitor = forensics, monitor

    def observe(
        self,
        step: int,
        outputs: Sequence[HeadOutput],
        loss: Tensor,
        squared_norm: Tensor,
        scale: Tensor,
        learning_rate: float,
    ) -> Tensor:
        """Return 1.0 () where the step must be skipped, else 0.0; see ``FiniteGuard.observe``."""
        skip = self.guard.observe(step, loss, squared_norm, scale)
        classification = torch.stack([o.classification.detach() for o in outputs]).sum()
        rose, usual = self.spikes.observe(step, classification, skip)
        taken = (self.guard.counters[1] == step, rose)
        numbers = (loss, usual, squared_norm, scale)
        self.forensics.keep(step, taken, numbers, outputs, learning_rate)
        return skip

    def look(self, step: int) -> None:
        """Say what happened since the last look, after ``step`` steps, and write it down.

        Raises NonFiniteError where the policy is to stop. Synchronises the host; called on all
        ranks together.
        """
        if spike := self.spikes.look():
            self.monitor.warn(
                step,
                f"step {spike.step}: the loss rose to {spike.loss:.2f}; the median of the "
                f"{HISTORY} steps before is {spike.usual:.2f}. If it stays up, lower optim.lr or "
                f"set optim.clip_norm. {self.forensics.write(LOSS_SPIKE, spike.step)}.",
            )
        if message := self.guard.check(self._describe):
            self.monitor.say(message)
        self.forensics.forget()

    def _describe(self, step: int) -> str:
        names = self.forensics.loader.describe_step(step)
        return f"{names}. {self.forensics.write(NOT_FINITE, step)}"
