"""Nets and heads in float64, for tests that follow a run over many steps.

Ranks split sums, which then round otherwise. Where the input of a PReLU is near 0, that decides its
slope: of 12 seeds, 15 steps in float32 brought momenta 1e-6 to 9e-4 apart. In float64, 4e-13 at
most: what is more is a fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def in_double(build: Callable[..., tuple[nn.Module, nn.Module]]) -> Callable[..., Any]:
    """Return ``build`` with the net and the head it makes in float64."""

    def build_double(*args: Any, **options: Any) -> tuple[nn.Module, nn.Module]:
        model, head = build(*args, **options)
        model.double().register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
        return model, head.double()

    return build_double
