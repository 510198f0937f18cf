from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from arcface_plus.regularizers.mma import mma_loss, nearest_angles
from arcface_plus.regularizers.sharded.class_mma import ClassMMA


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_value_and_gradient_are_those_of_the_loss(weight) -> None:
    value = ClassMMA(40)(weight, 0)
    value.backward()
    mine, weight.grad = weight.grad, None
    want = mma_loss(weight)
    want.backward()
    assert torch.equal(value, want) and torch.equal(mine, weight.grad)


def test_active_rows_get_their_part_of_the_gradient(weight) -> None:
    ClassMMA(40)(weight, 0).backward()
    rows = torch.tensor([1, 5, 30])
    picked = weight.detach()[rows].requires_grad_()
    factors = torch.tensor([1.0, 10.0, 2.0])
    value = ClassMMA(40)(weight.detach(), 0, active=(rows, picked, factors))
    value.backward()
    torch.testing.assert_close(picked.grad, weight.grad[rows] * factors[:, None])


@pytest.mark.parametrize("active", [False, True])
def test_sampled_rows_change_with_the_step_and_not_with_the_call(weight, active) -> None:
    mma = ClassMMA(40, rows=7, seed=3)
    rows = torch.arange(40)
    arguments = {"active": (rows, weight[rows], torch.ones(40))} if active else {}
    values = [mma(weight, step, **arguments).item() for step in (0, 1, 0)]
    assert values[0] == values[2] != values[1]
    assert ClassMMA(40, rows=7, seed=4)(weight, 0).item() != values[0]


def test_summary_against_plain_torch(weight) -> None:
    with torch.no_grad():
        weight[1] = weight[0] * 2 + 1e-4  # a class on top of another
    summary = ClassMMA(40).summary(weight)
    unit = F.normalize(weight.detach().double(), dim=1)
    cosine = unit @ unit.t() - 3 * torch.eye(40, dtype=torch.float64)
    degrees = torch.rad2deg(torch.acos(cosine.max(dim=1).values))
    assert summary["nearest_angle"] == pytest.approx(degrees.mean().item(), rel=1e-4)
    assert summary["nearest_angle_min"] == pytest.approx(degrees.min().item(), rel=1e-3, abs=1e-4)
    assert summary["nearest_angle_p50"] == pytest.approx(degrees.quantile(0.5).item(), rel=1e-4)
    assert summary["classes_under_1_degree"] == 2
    norms = weight.detach().norm(dim=1)
    assert summary["norm_max"] == pytest.approx(norms.max().item(), rel=1e-5)


def test_reused_neighbours_and_their_state(weight) -> None:
    mma = ClassMMA(40, refresh_every=3)
    first = mma.state_tensors(weight.device)["neighbours"]
    assert (first == -1).all() and mma.uses() == 0
    mma(weight, 0)
    state = mma.state_tensors(weight.device)["neighbours"].clone()
    assert torch.equal(state, nearest_angles(weight.detach()).index) and mma.uses() == 1
    other = ClassMMA(40, refresh_every=3)
    other.restore({"neighbours": state}, 1)
    moved = torch.randn(40, 6).requires_grad_()
    # Two more uses of the old neighbours, then a search.
    kept = [other(moved, s).item() for s in (1, 2, 3)]
    exact = mma_loss(moved).item()
    assert kept[0] == kept[1] <= exact and kept[2] == pytest.approx(exact)


def test_summary_never_uses_old_neighbours(weight) -> None:
    mma = ClassMMA(40, refresh_every=100)
    mma(weight, 0)
    with torch.no_grad():
        weight.copy_(torch.randn(40, 6, generator=torch.Generator().manual_seed(9)))
    assert mma.summary(weight)["nearest_angle"] == pytest.approx(
        ClassMMA(40).summary(weight)["nearest_angle"]
    )


def test_bad_row_is_nan(weight) -> None:
    with torch.no_grad():
        weight[3] = 0
    assert ClassMMA(40)(weight, 0).isnan()


def test_nearest_is_never_old_and_unknown_where_rows_are_sampled(weight) -> None:
    mma = ClassMMA(40, refresh_every=10)
    mma(weight, 0)
    moved = weight.detach().roll(1, 0) + 0.3
    degrees, index = mma.nearest(moved)
    expected = nearest_angles(moved)
    assert index is not None and torch.equal(index, expected.index)
    torch.testing.assert_close(degrees, torch.rad2deg(expected.angle.double()), rtol=1e-5, atol=0)
    degrees, index = ClassMMA(40, rows=7).nearest(moved)
    assert degrees.shape == (7,) and index is None
