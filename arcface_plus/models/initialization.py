"""Initial weights of the convolutional networks."""

from __future__ import annotations

import math

from torch import nn

SCHEMES = ("normal", "xavier")


def check_scheme(scheme: str) -> str:
    """Return ``scheme`` if it names one of ``SCHEMES``."""
    if scheme not in SCHEMES:
        raise ValueError(f"init must be one of {SCHEMES}, got {scheme!r}")
    return scheme


def initialize(model: nn.Module, *, scheme: str) -> None:
    """Draw the weights of every convolution and linear layer from torch's global generator.

    ``normal``: convolutions N(0, 0.1²) as arcface_torch's IResNet; linear layers keep torch's
    default. ``xavier``: convolutions and linear layers N(0, 2 / fan_out), linear bias 0, as
    insightface's MXNet trainer (``Xavier(rnd_type="gaussian", factor_type="out", magnitude=2)``);
    the fan-out of a grouped convolution counts all its outputs, as MXNet and torch do.
    Batch norms (gain 1, shift 0) and PReLU (0.25) start as torch makes them in both.
    """
    check_scheme(scheme)
    for module in model.modules():
        if scheme == "normal" and isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
        elif scheme == "xavier" and isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_out = module.weight.shape[0] * math.prod(module.weight.shape[2:])
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
