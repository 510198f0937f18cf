"""The cosine loss: its naive form, gradient, and rows that no norm or zero spoils."""

from __future__ import annotations

import math

import pytest
import torch

from arcface_plus.losses.distillation.cosine import cosine_loss


def drawn(rows: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)).double()


def naive(student: torch.Tensor, teacher: torch.Tensor) -> float:
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        dot = sum(a * b for a, b in zip(s, t, strict=True))
        total += 1 - dot / math.hypot(*s) / math.hypot(*t)
    return total / len(student)


def test_equals_the_naive_form_and_its_gradient_is_right() -> None:
    student, teacher = drawn(5, 7, 0).requires_grad_(), drawn(5, 7, 1)
    assert cosine_loss(student, teacher).item() == pytest.approx(naive(student, teacher), abs=1e-12)
    assert torch.autograd.gradcheck(cosine_loss, (student, teacher))


def test_is_0_for_equal_directions_and_2_for_opposite_ones_whatever_the_norms() -> None:
    x = drawn(4, 6, 2)
    scale = torch.tensor([[1e-30], [1.0], [7.0], [1e30]], dtype=torch.float64)
    assert cosine_loss(x * scale, x).item() == pytest.approx(0, abs=1e-12)
    assert cosine_loss(-x, x * scale).item() == pytest.approx(2, abs=1e-12)


def test_a_row_of_zeros_counts_as_a_right_angle() -> None:
    student, teacher = torch.zeros(1, 3, requires_grad=True), torch.ones(1, 3)
    loss = cosine_loss(student, teacher)
    loss.backward()
    assert loss.item() == 1 and torch.isfinite(student.grad).all()
