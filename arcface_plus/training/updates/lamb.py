"""LAMB (You et al., ICLR 2020) of the net's layers: steps as long as the layers, for large batches.

From timm, which is kept up; torch has none. Its global gradient norm is left out: it would be that
of one rank's parameters (``optim.clip_norm`` clips over all ranks).
"""

from __future__ import annotations

import importlib
from typing import Any

import torch


def build_lamb(
    groups: list[dict[str, Any]],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Return timm's LAMB of ``groups``, its state at zero; ValueError without timm.

    ``found_inf``, non-zero, skips a step; unlike a fused optimizer this one asks the device for it,
    once a step.
    """
    try:
        timm = importlib.import_module("timm.optim")  # an optional dependency
    except ModuleNotFoundError as error:
        raise ValueError('optim.kind lamb needs timm: pip install "arcface_plus[timm]"') from error
    optimizer: torch.optim.Optimizer = timm.Lamb(
        groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, max_grad_norm=None
    )
    for group in optimizer.param_groups:
        # One number a group; each of its parameters shows it, for a checkpoint to hold.
        group["step"] = torch.zeros((), dtype=torch.float32)
        for parameter in group["params"]:
            optimizer.state[parameter]["step"] = group["step"]
    step = optimizer.step

    def step_if_finite(closure: None = None) -> None:
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is None or not bool(found_inf):
            step(closure)

    optimizer.step = step_if_finite  # type: ignore[assignment, method-assign]
    return optimizer
