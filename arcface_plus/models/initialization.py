"""Initial weights of the convolutional networks."""

from __future__ import annotations

import math

from torch import nn

SCHEMES = ("normal", "xavier")  # that a face net may be asked for


def check_scheme(scheme: str) -> str:
    """Return ``scheme`` if it names one of ``SCHEMES``."""
    if scheme not in SCHEMES:
        raise ValueError(f"init must be one of {SCHEMES}, got {scheme!r}")
    return scheme


def initialize(model: nn.Module, *, scheme: str) -> None:
    """Draw the weights of every convolution and linear layer from torch's global generator.

    ``normal``: convolutions N(0, 0.1²) as arcface_torch's IResNet; linear layers keep torch's
    default. ``xavier``: convolutions and linear layers N(0, 2 / fan_out), bias 0, as insightface's
    MXNet trainer (``Xavier(rnd_type="gaussian", factor_type="out", magnitude=2)``), which is eq.
    (14) of He et al., Delving Deep into Rectifiers, ICCV 2015; the fan-out of a grouped convolution
    counts all its outputs, as MXNet and torch do. ``he``: the same by fan-in, eq. (10) there.
    Batch norms (gain 1, shift 0) and PReLU (0.25) start as torch makes them in all three.
    """
    for module in model.modules():
        if scheme == "normal" and isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
        elif scheme != "normal" and isinstance(module, (nn.Conv2d, nn.Linear)):
            fan = module.weight.shape[1 if scheme == "he" else 0]
            positions = math.prod(module.weight.shape[2:])
            nn.init.normal_(module.weight, std=math.sqrt(2 / (fan * positions)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
