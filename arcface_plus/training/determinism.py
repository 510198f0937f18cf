"""The same bits from the same run on a GPU, where torch can: ``train.deterministic``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

# cuBLAS reads it when its first handle is made; of the two values that make it deterministic, the
# one with more workspace (24 MiB).
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_WORKSPACE = ":4096:8"


@contextlib.contextmanager
def deterministic(wanted: bool, device: torch.device) -> Iterator[None]:
    """Let torch use deterministic operations alone while this is entered, if ``wanted``.

    Otherwise cuDNN tries which convolution is fastest for the shapes it sees, which never change.
    Changes nothing on the CPU, whose operations are: runs there repeat to the bit without it. On a
    GPU an operation that has no deterministic form raises RuntimeError, which names it.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    if wanted:
        os.environ.setdefault(_CUBLAS, _WORKSPACE)
        torch.use_deterministic_algorithms(True)
    cudnn.benchmark = not wanted  # which is fastest differs from start to start
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark = before[1]
