"""Tests that need a GPU; `make gpu` runs what is in device_checks.py without pytest as well."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The GPU; skips where there is none."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU; on a machine with one, run `make gpu`")
    return torch.device("cuda")
