"""Which number format the convolutions run in."""

from __future__ import annotations

import torch

from arcface_plus.models.autocast import has_native_bf16


def resolve_precision(wanted: str, device: torch.device) -> str:
    """Return ``bf16``, ``fp16`` or ``fp32``; ``auto`` is bf16 where the device multiplies it
    natively.

    Raises ValueError for a format that the device cannot run.
    """
    if wanted == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    if wanted == "bf16" and device.type == "cuda" and not has_native_bf16(device):
        raise ValueError(
            "train.precision is bf16, but this GPU has no bf16 arithmetic; use fp16, fp32 or auto."
        )
    return wanted


def autocast_dtype(precision: str) -> torch.dtype:
    return torch.float16 if precision == "fp16" else torch.bfloat16
