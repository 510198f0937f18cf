"""Which number format the convolutions run in."""

from __future__ import annotations

import torch

from arcface_plus.models.autocast import has_native_bf16, has_tf32


def resolve_precision(wanted: str, device: torch.device) -> str:
    """Return ``bf16``, ``fp16``, ``tf32`` or ``fp32``; ``auto`` is bf16 where the device multiplies
    it natively.

    Raises ValueError for a format that the device cannot run.
    """
    if wanted == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    if wanted == "bf16" and device.type == "cuda" and not has_native_bf16(device):
        raise ValueError(
            "train.precision is bf16, but this GPU has no bf16 arithmetic; use fp16, fp32 or auto."
        )
    if wanted == "tf32" and not has_tf32(device):
        raise ValueError(
            "train.precision is tf32, but this device has no TF32 arithmetic (GPUs have it from "
            "compute capability 8.0 on); use fp32 or auto."
        )
    return wanted


def autocast_dtype(precision: str) -> torch.dtype:
    return torch.float16 if precision == "fp16" else torch.bfloat16
