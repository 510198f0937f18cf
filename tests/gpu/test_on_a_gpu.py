"""Everything in device_checks.py, on a GPU."""

from __future__ import annotations

import device_checks
import pytest


@pytest.mark.parametrize("name", device_checks.CHECKS)
def test_on_a_gpu(gpu, name: str) -> None:  # type: ignore[no-untyped-def]
    device_checks.CHECKS[name](gpu)
