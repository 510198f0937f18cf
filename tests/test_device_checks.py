"""The checks of GPUs are themselves checked: on the CPU, down a GPU's paths."""

from __future__ import annotations

import device_checks
import pytest
import torch
from watch import as_on_a_gpu

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", device_checks.CHECKS)
def test_the_cpu_passes_them(name: str) -> None:
    with as_on_a_gpu():
        assert device_checks.CHECKS[name](CPU)


def test_they_notice_a_wrong_neighbour() -> None:
    rows = device_checks.unit_rows("random", 50, 8)
    index = (torch.arange(50) + 1) % 50
    assert device_checks.excess(rows, rows, index, own=True) > 0.01
