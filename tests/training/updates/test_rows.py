"""Optimizers of class rows, against torch's and timm's on each row's own steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from arcface_plus.training.updates.rows import RowAdamW, RowSGD

ADAM = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}
STEPS = ([0, 3], [3], [1, 3, 4], [0, 1], [3, 4])


def sparse(rows: list[int], values: torch.Tensor) -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows]), values, (5, 3), check_invariants=True)


def begin(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> None:
    state = optimizer.state[weight]
    for name in optimizer.names:
        state[name] = torch.zeros(5, dtype=weight.dtype) if name == "step" else weight * 0


def test_row_sgd_is_sgd_on_its_rows_and_nothing_elsewhere() -> None:
    weight = nn.Parameter(torch.randn(5, 3))
    optimizer = RowSGD([weight], lr=0.1, momentum=0.9, weight_decay=0.01)
    optimizer.state[weight]["momentum_buffer"] = torch.zeros(5, 3)
    value, buffer = weight.detach().clone(), torch.zeros(5, 3)
    for rows in ([0, 3], [3], [1, 3, 4]):
        gradient = torch.randn(len(rows), 3)
        weight.grad = sparse(rows, gradient)
        optimizer.step()
        buffer[rows] = 0.9 * buffer[rows] + gradient + 0.01 * value[rows]
        value[rows] -= 0.1 * buffer[rows]
        torch.testing.assert_close(weight.detach(), value)
    assert (optimizer.state[weight]["momentum_buffer"][2] == 0).all()


def test_row_sgd_adds_up_uncoalesced_gradients_and_skips() -> None:
    weight = nn.Parameter(torch.ones(5, 3))
    optimizer = RowSGD([weight], lr=1.0, momentum=0.0, weight_decay=0.0)
    optimizer.state[weight]["momentum_buffer"] = torch.zeros(5, 3)
    weight.grad = sparse([2, 2], torch.ones(2, 3))
    optimizer.step()
    assert (weight[2] == -1).all() and (weight[[0, 1, 3, 4]] == 1).all()
    optimizer.found_inf = torch.ones(())
    weight.grad = sparse([0], torch.full((1, 3), math.nan))
    optimizer.step()
    assert (weight[0] == 1).all() and torch.isfinite(weight).all()


def row_by_row(make, gradients) -> torch.Tensor:
    """Return the rows after the steps that each took part in, each a parameter of its own."""
    torch.manual_seed(0)
    start = torch.randn(5, 3, dtype=torch.float64)
    ends = []
    for row in range(5):
        alone = nn.Parameter(start[row : row + 1].clone())
        optimizer = make([alone])
        for rows, gradient in gradients:
            if row in rows:
                alone.grad = gradient[rows.index(row)][None].clone()
                optimizer.step()
        ends.append(alone.detach())
    return torch.cat(ends)


@pytest.mark.parametrize("trust", [False, True])
def test_each_row_is_adamw_or_lamb_of_its_own_steps(trust: bool) -> None:
    torch.manual_seed(1)
    gradients = [(rows, torch.randn(len(rows), 3, dtype=torch.float64)) for rows in STEPS]
    if trust:
        timm = pytest.importorskip("timm.optim", reason="the extra timm is absent")
        want = row_by_row(lambda p: timm.Lamb(p, max_grad_norm=None, **ADAM), gradients)
    else:
        want = row_by_row(lambda p: torch.optim.AdamW(p, **ADAM), gradients)
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, 3, dtype=torch.float64))
    untouched = weight[2].detach().clone()
    optimizer = RowAdamW([weight], **ADAM, trust=trust)
    begin(optimizer, weight)
    for rows, gradient in gradients:
        weight.grad = sparse(rows, gradient)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), want, rtol=1e-10, atol=1e-12)
    assert torch.equal(weight[2], untouched)
    state = optimizer.state[weight]
    assert state["step"].tolist() == [2, 2, 0, 4, 2]
    assert not state["exp_avg"][2].any() and not state["exp_avg_sq"][2].any()


@pytest.mark.parametrize("trust", [False, True])
def test_a_dense_gradient_updates_all_rows(trust: bool) -> None:
    ends = []
    for dense in (True, False):
        torch.manual_seed(2)
        weight = nn.Parameter(torch.randn(5, 3))
        optimizer = RowAdamW([weight], **ADAM, trust=trust)
        begin(optimizer, weight)
        for _ in range(3):
            gradient = torch.randn(5, 3)
            weight.grad = gradient if dense else sparse([0, 1, 2, 3, 4], gradient)
            optimizer.step()
        ends.append(weight.detach())
    assert torch.equal(*ends)


def test_lambs_step_is_as_long_as_lr_times_the_row() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0, 0.0]] * 5))
    optimizer = RowAdamW([weight], **{**ADAM, "weight_decay": 0.0}, trust=True)
    begin(optimizer, weight)
    before = weight.detach().clone()
    weight.grad = sparse([1], torch.tensor([[1e-3, 7.0, -2.0]]))
    optimizer.step()
    assert (weight[1] - before[1]).norm().item() == pytest.approx(0.05 * 5)
    zero = nn.Parameter(torch.zeros(5, 3))
    optimizer = RowAdamW([zero], **ADAM, trust=True)
    begin(optimizer, zero)
    zero.grad = sparse([0], torch.ones(1, 3))
    optimizer.step()
    assert torch.isfinite(zero).all() and zero[0].any()


def test_a_step_that_is_not_finite_leaves_no_trace() -> None:
    weight = nn.Parameter(torch.randn(5, 3))
    optimizer = RowAdamW([weight], **ADAM)
    begin(optimizer, weight)
    weight.grad = sparse([1, 2], torch.randn(2, 3))
    optimizer.step()
    kept = [weight.detach().clone(), *(v.clone() for v in optimizer.state[weight].values())]
    optimizer.found_inf = torch.ones(())
    weight.grad = sparse([2], torch.full((1, 3), math.nan))
    optimizer.step()
    now = [weight.detach(), *optimizer.state[weight].values()]
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))
