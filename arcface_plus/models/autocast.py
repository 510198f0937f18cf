"""In which number format products are made: autocast, TF32, and what devices multiply natively."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def has_native_bf16(device: torch.device) -> bool:
    """Return whether ``device`` multiplies bf16 in hardware; emulated, it is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_tf32(device: torch.device) -> bool:
    """Return whether ``device`` multiplies in TF32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def has_fast_bf16() -> bool:
    """Return whether this CPU multiplies bf16 faster than fp32, by what its units can do a cycle.

    AMX does sixteen times as much. AMD's AVX512-BF16 does twice as much; Intel's goes through one
    port where fp32 has two, so that it gains nothing, and conversions lose.
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    is_intel = "Intel" in str(known.get("cpu_name"))
    return bool(torch.cpu._is_avx512_bf16_supported()) and not is_intel


def autocast_disabled(tensor: Tensor) -> AbstractContextManager[Any]:
    """Leave autocast on the tensor's device (devices without autocast have none to leave)."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


@contextlib.contextmanager
def fp32_products(*, tf32: bool = False) -> Iterator[None]:
    """Make fp32 mean IEEE fp32 on every device; with ``tf32`` GPUs convolve in TF32.

    Left alone, torch convolves in TF32 on a GPU, with 10 bits of significand, and calls it float32.
    Matrix products (the last layer, the head, MMA) are IEEE either way. The whole process is
    affected; what was set before is put back.
    """
    b: Any = torch.backends
    convolve = "tf32" if tf32 else "ieee"
    wanted = {
        # The older name first: torch refuses to read it where it and the newer ones differ.
        (b.cudnn, "allow_tf32"): tf32,
        (b.cudnn.conv, "fp32_precision"): convolve,
        (b.cudnn.rnn, "fp32_precision"): convolve,
        (b.cuda.matmul, "allow_tf32"): False,
        (b.cuda.matmul, "fp32_precision"): "ieee",
        (b.mkldnn.conv, "fp32_precision"): "ieee",
        (b.mkldnn.matmul, "fp32_precision"): "ieee",
    }
    with _settings(wanted):
        yield


@contextlib.contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Multiply matrices in the precision of their dtype, sums of half precision in fp32."""
    b: Any = torch.backends
    wanted: dict[tuple[Any, str], Any] = {(b.mkldnn.matmul, "fp32_precision"): "ieee"}
    if device.type == "cuda":
        wanted = {
            (b.cuda.matmul, "allow_tf32"): False,
            (b.cuda.matmul, "fp32_precision"): "ieee",
            (b.cuda.matmul, "allow_fp16_reduced_precision_reduction"): False,
            (b.cuda.matmul, "allow_bf16_reduced_precision_reduction"): False,
        }
    with _settings(wanted):
        yield


@contextlib.contextmanager
def _settings(wanted: Mapping[tuple[Any, str], Any]) -> Iterator[None]:
    before = {}
    for owner, name in wanted:
        with contextlib.suppress(RuntimeError):  # set by its other name: nothing to put back
            before[owner, name] = getattr(owner, name)
    try:
        for (owner, name), value in wanted.items():
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name), value in before.items():
            setattr(owner, name, value)
