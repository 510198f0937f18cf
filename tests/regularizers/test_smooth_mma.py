"""The smooth minimum: its bounds, its limit, and its gradient where angles are extreme."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from arcface_plus.regularizers.mma import mma_loss, nearest_angles
from arcface_plus.regularizers.smooth_mma import smooth_mma_loss


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient(weight: Tensor, temperature: float) -> Tensor:
    leaf = weight.detach().clone().requires_grad_()
    smooth_mma_loss(leaf, temperature=temperature).backward()
    return leaf.grad


@pytest.mark.parametrize("temperature", [1e-4, 0.01, 0.1, 1.0, 100.0])
@pytest.mark.parametrize(("n", "d"), [(2, 3), (3, 2), (50, 4), (300, 20)])
def test_lies_between_mma_and_mma_plus_the_stated_slack(n: int, d: int, temperature: float) -> None:
    weight = random(n, d)
    mma, smooth = mma_loss(weight).item(), smooth_mma_loss(weight, temperature=temperature).item()
    assert mma - 1e-12 <= smooth <= mma + temperature * math.log(n - 1) + 1e-12


def test_upper_bound_is_reached_where_all_angles_are_equal() -> None:
    weight = torch.eye(6, dtype=torch.float64)
    expected = mma_loss(weight).item() + 0.2 * math.log(5)
    assert smooth_mma_loss(weight, temperature=0.2).item() == pytest.approx(expected, abs=1e-12)


def test_tends_to_mma_value_and_gradient() -> None:
    weight = random(30, 5)
    leaf = weight.clone().requires_grad_()
    mma_loss(leaf).backward()
    errors = [(gradient(weight, t) - leaf.grad).norm().item() for t in (0.1, 0.01, 1e-3, 1e-6)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-10


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 0.05, 1.0, 3.1, math.pi - 1e-6, math.pi])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_norm_of_one_pair_is_one_over_the_row_norm(
    angle: float, dtype: torch.dtype
) -> None:
    q = torch.linalg.qr(random(5, 2))[0].t()
    second = math.cos(angle) * q[0] + math.sin(angle) * q[1]
    weight = torch.stack([3 * q[0], 0.5 * second]).to(dtype)
    turned = gradient(weight, 0.1)
    norms = turned.norm(dim=1) * weight.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(2, dtype=dtype), rtol=0, atol=1e-5)
    value = smooth_mma_loss(weight, temperature=0.1).item()
    assert -value == pytest.approx(angle, abs=1e-6 if dtype == torch.float32 else 1e-12)


def test_float32_agrees_with_float64_among_close_rows() -> None:
    row = random(1, 8, seed=1)
    weight = torch.cat([row + 10.0**-k * random(3, 8, seed=k) for k in range(1, 5)])
    exact, rounded = gradient(weight.float().double(), 0.05), gradient(weight.float(), 0.05)
    assert (rounded - exact).norm() < 1e-4 * exact.norm()


def test_identical_rows_scatter() -> None:
    weight = torch.nn.functional.normalize(random(1, 8, dtype=torch.float32)).repeat(12, 1)
    for _ in range(200):
        weight = weight - 0.5 * gradient(weight, 0.1)
    assert nearest_angles(weight).angle.min() > 0.5


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperatures_out_of_range_are_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature is {temperature}, but must be above 0"):
        smooth_mma_loss(random(3, 2), temperature=temperature)
