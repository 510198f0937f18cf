"""Relational distillation: its naive form and gradient, what it does not see, odd batches."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from arcface_plus.losses.distillation.relational import relational_loss


def drawn(rows: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)).double()


def relations(x: torch.Tensor) -> list[float]:
    unit = [[v / math.hypot(*row) for v in row] for row in x.tolist()]
    distances = [math.dist(a, b) for a, b in itertools.combinations(unit, 2)]
    mean = sum(distances) / len(distances)
    return [d / mean for d in distances]


def huber(difference: float) -> float:
    size = abs(difference)
    return size * size / 2 if size <= 1 else size - 0.5


def naive(student: torch.Tensor, teacher: torch.Tensor) -> float:
    pairs = [*zip(relations(student), relations(teacher), strict=True)]
    return sum(huber(s - t) for s, t in pairs) / len(pairs)


def test_equals_the_naive_form_of_other_widths_and_its_gradient_is_right() -> None:
    student, teacher = drawn(6, 5, 0).requires_grad_(), drawn(6, 9, 1)
    want = pytest.approx(naive(student, teacher), abs=1e-12)
    assert relational_loss(student, teacher).item() == want
    assert torch.autograd.gradcheck(relational_loss, (student, teacher))


def test_the_linear_part_of_huber_is_reached() -> None:
    student = torch.tensor([[1.0, 0.0], [1.0, 1e-3], [1.0, 2e-3], [-1.0, 0.0]]).double()
    teacher = torch.eye(4).double()
    assert max(abs(s - t) for s, t in zip(*map(relations, (student, teacher)), strict=True)) > 0.99
    far = torch.cat([student[:3], student[:3] + 1e-4, student[3:]])
    wide = torch.eye(7).double()
    pairs = [abs(s - t) for s, t in zip(*map(relations, (far, wide)), strict=True)]
    assert max(pairs) > 1, "otherwise this tests the square alone"
    assert relational_loss(far, wide).item() == pytest.approx(naive(far, wide), rel=1e-9)


def test_rotations_norms_and_the_scale_of_all_distances_do_not_matter() -> None:
    x = drawn(5, 4, 2)
    turn = torch.linalg.qr(drawn(4, 4, 3))[0]
    assert relational_loss(x @ turn * 3, x).item() == pytest.approx(0, abs=1e-12)
    equal_angles = torch.eye(5).double()  # regular simplices of any size
    closer = torch.nn.functional.normalize(equal_angles + 1, dim=1)
    assert relational_loss(closer, equal_angles).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rows", [0, 1])
def test_without_a_pair_it_is_0(rows: int) -> None:
    student = torch.ones(rows, 3, requires_grad=True)
    relational_loss(student, torch.ones(rows, 2)).backward()
    assert (student.grad == 0).all()


def test_equal_embeddings_have_a_finite_gradient() -> None:
    student = torch.ones(3, 4, requires_grad=True)
    loss = relational_loss(student, torch.eye(3))
    loss.backward()
    assert loss.item() == pytest.approx(0.5) and torch.isfinite(student.grad).all()
