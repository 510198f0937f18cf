"""Where autocast applies, and which devices multiply bf16 natively."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def has_native_bf16(device: torch.device) -> bool:
    """Return whether ``device`` multiplies bf16 in hardware; emulated, it is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast_disabled(tensor: Tensor) -> AbstractContextManager[Any]:
    """Leave autocast on the tensor's device (devices without autocast have none to leave)."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)
