"""Notice non-finite losses and gradients without asking the device at every step.

A flag on the device, equal on all ranks, gates each optimizer step as it happens; the host reads
the counters at log steps and then follows the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from arcface_plus.checkpoints.parts import Part, Stored
from arcface_plus.training.settings import TrainConfig

SMALLEST_SCALE = 1.0  # a gradient that overflows here is too large for fp16 as it is
_NOTHING_TAKEN = 2.0**100  # above any scale


class NonFiniteError(ArithmeticError):
    """A loss or gradient is not finite, and the policy is to stop."""


class FiniteGuard(Part):
    """Counts steps with a non-finite loss or gradient; their updates are skipped on the device.

    In fp16 a gradient may overflow while the loss is finite; the scaler then halves its scale. Such
    a step is skipped and counted, but it is no error while the scale can still fall to 1. Steps in
    a row that are skipped beyond that many halvings are: no scale would cure them.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.policy, self.limit = config.on_nonfinite, config.nonfinite_limit
        # count of bad steps, first bad step since the last look (−1: none), skipped steps
        self.counters = torch.tensor([0, -1, 0], dtype=torch.int64, device=device)
        # What skipped steps in a row have left of the scale, each taking half of it.
        self.scale_left = torch.tensor(_NOTHING_TAKEN, device=device)

    def observe(self, step: int, loss: Tensor, squared_norm: Tensor, scale: Tensor) -> Tensor:
        """Return 1.0 () where the step must be skipped, else 0.0, and count it.

        ``scale`` () float32 multiplied this step's gradients in backward; 1 without a scaler.
        """
        bad_loss = ~torch.isfinite(loss.detach())
        skip = bad_loss | ~torch.isfinite(squared_norm)
        left = torch.minimum(self.scale_left, scale)
        bad = bad_loss | (skip & (left <= SMALLEST_SCALE))
        self.scale_left = torch.where(skip, left / 2, _NOTHING_TAKEN)
        first = torch.where((self.counters[1] < 0) & bad, step, self.counters[1])
        self.counters = torch.stack([self.counters[0] + bad, first, self.counters[2] + skip])
        return skip.float()

    def check(self, describe_step: Callable[[int], str]) -> str | None:
        """Look at the counters (a host synchronisation) and follow the policy.

        Returns a message where steps were skipped since the last look and training may continue;
        raises NonFiniteError where it must stop.
        """
        count, first, _ = self.counters.tolist()
        if first < 0:
            return None
        self.counters[1] = -1
        message = (
            f"step {first}: the loss or its gradient is not finite; its update was skipped. "
            f"The step's images: {describe_step(first)}."
        )
        if self.policy == "stop":
            raise NonFiniteError(
                message + " Weights are as before that step. Lower --optim.lr, set "
                "--optim.clip_norm, or --train.on_nonfinite skip to continue past such steps."
            )
        if count > self.limit:
            raise NonFiniteError(
                f"{message} That makes {count} skipped steps, more than train.nonfinite_limit "
                f"({self.limit})."
            )
        return message

    def skipped(self) -> int:
        return int(self.counters[2])

    def numbers(self) -> dict[str, Any]:
        return {"skipped_steps": self.counters.tolist(), "scale_left": self.scale_left.item()}

    def restore(self, tensors: Mapping[str, Stored], numbers: Mapping[str, Any]) -> None:
        self.counters.copy_(torch.tensor(numbers["skipped_steps"]))
        self.scale_left.fill_(numbers.get("scale_left", _NOTHING_TAKEN))  # not in older checkpoints


def current_scale(scaler: GradScaler, like: Tensor) -> Tensor:
    """Return what ``scaler`` multiplies losses by, () as ``like``, without asking the device."""
    return scaler.scale(torch.ones_like(like))


def update_scale(scaler: GradScaler, like: Tensor) -> None:
    """Let ``scaler`` halve or double its scale, but not below 1.

    Torch lets it fall to 0, after which no gradient is ever finite again.
    """
    if scaler.is_enabled():
        scaler.update()
        scaler.update(current_scale(scaler, like).clamp_min(SMALLEST_SCALE))


class BatchNormRestorer:
    """Puts running statistics back where a skipped step has poisoned them."""

    def __init__(self, model: nn.Module) -> None:
        self.live = [
            b
            for m in model.modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm)
            for b in (m.running_mean, m.running_var)
            if b is not None
        ]
        self.kept = [b.clone() for b in self.live]

    def remember(self) -> None:
        if self.live:
            torch._foreach_copy_(self.kept, self.live)

    def restore_if(self, skip: Tensor) -> None:
        bad = skip.bool()
        for live, kept in zip(self.live, self.kept, strict=True):
            live.copy_(torch.where(bad, kept, live))
