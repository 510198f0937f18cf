"""Which number format the convolutions run in."""

from __future__ import annotations

import torch


def resolve_precision(wanted: str, device: torch.device) -> str:
    """Return ``bf16``, ``fp16`` or ``fp32``; ``auto`` is bf16 where the device multiplies it
    natively.

    Raises ValueError for a format that the device cannot run.
    """
    has_bf16 = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if device.type == "cuda"
        else bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    )
    if wanted == "auto":
        return "bf16" if has_bf16 else "fp32"
    if wanted == "bf16" and device.type == "cuda" and not has_bf16:
        raise ValueError(
            "train.precision is bf16, but this GPU has no bf16 arithmetic; use fp16, fp32 or auto."
        )
    return wanted


def autocast_dtype(precision: str) -> torch.dtype:
    return torch.float16 if precision == "fp16" else torch.bfloat16
