"""The learning rate, a pure function of the optimizer step, and how optimizers get it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch.optim import Optimizer

from arcface_plus.training.settings import ScheduleConfig


def lr_at(step: int, *, base_lr: float, total_steps: int, schedule: ScheduleConfig) -> float:
    """Return the learning rate of step ``step`` (0-based: the first update is step 0).

    Warm-up rises linearly and ends at ``base_lr`` in its last step: (step + 1)/warmup_steps. Then
    ``milestones``: base · gamma^(milestones ≤ step). ``polynomial`` and ``cosine`` fall from base
    after the warm-up to ``final_lr`` after the last step.
    """
    warmup = schedule.warmup_steps
    if step < warmup:
        return base_lr * (step + 1) / warmup
    if schedule.kind == "milestones":
        return base_lr * schedule.gamma ** sum(m <= step for m in schedule.milestones)
    done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    if schedule.kind == "polynomial":
        left = (1 - done) ** schedule.power
    else:
        left = 0.5 * (1 + math.cos(math.pi * done))
    return schedule.final_lr + (base_lr - schedule.final_lr) * left


def set_learning_rate(
    optimizers: Iterable[Optimizer],
    step: int,
    *,
    base_lr: float,
    total_steps: int,
    schedule: ScheduleConfig,
) -> float:
    """Give ``optimizers`` the rate of ``step``, times the ``lr_scale`` of a group; return it."""
    rate = lr_at(step, base_lr=base_lr, total_steps=total_steps, schedule=schedule)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
    return rate
