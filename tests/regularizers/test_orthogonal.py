"""The orthogonal loss through both of its Gram matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from arcface_plus.regularizers.orthogonal import orthogonal_loss


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_zero_for_orthogonal_rows_of_any_norm() -> None:
    rows = torch.linalg.qr(random(6, 6))[0][:4] * torch.tensor([[1.0], [2], [0.1], [30]])
    weight = rows.clone().requires_grad_()
    loss = orthogonal_loss(weight)
    loss.backward()
    assert loss.item() < 1e-25 and weight.grad.abs().max() < 1e-12
    assert orthogonal_loss(torch.cat([rows, rows[:1]])).item() == pytest.approx(1)


@pytest.mark.parametrize("copies", [2, 3])
def test_more_rows_than_dimensions_have_a_least_value(copies: int) -> None:
    """½ n (n/d − 1), taken by rows spread evenly; computed without losing digits to it."""
    d = 50
    frame = torch.linalg.qr(random(d, d))[0]
    rows = torch.cat([frame, -frame, torch.linalg.qr(random(d, d).t())[0]])[: copies * d]
    n = len(rows)
    weight = rows.float().requires_grad_()
    loss = orthogonal_loss(weight)
    loss.backward()
    assert loss.item() == pytest.approx(n * (n / d - 1) / 2, rel=1e-6)
    assert weight.grad.abs().max() < 1e-5


def test_both_gram_matrices_agree_where_they_meet() -> None:
    square = random(8, 8)
    by_rows = orthogonal_loss(square)
    by_columns = orthogonal_loss(torch.cat([square, square[:1]]))
    unit = torch.nn.functional.normalize(square, dim=1)
    more = 1 + (unit @ unit[0]).square()[1:].sum()  # the pairs that the ninth row brings
    assert by_columns.item() == pytest.approx((by_rows + more).item(), rel=1e-12)


def test_steps_make_rows_orthogonal() -> None:
    weight = random(6, 10).requires_grad_()
    assert orthogonal_loss(weight) > 0.1
    for _ in range(300):
        loss = orthogonal_loss(weight)
        (gradient,) = torch.autograd.grad(loss, weight)
        with torch.no_grad():
            weight -= 0.5 * gradient
    assert loss < 1e-10
