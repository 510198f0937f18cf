"""Closeness: the published pair form, forward and backward, and what has no pairs."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from arcface_plus.losses.closeness.closeness import closeness_loss
from arcface_plus.losses.directions import unit_directions

POINTS = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]], dtype=torch.float64)


def naive(embeddings: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    classes, each = embeddings.shape[:2]
    if weights is None:
        weights = torch.ones(classes, each, dtype=embeddings.dtype)
    unit = F.normalize(embeddings, dim=2)
    total = norm = embeddings.new_zeros(())
    for k, (i, j) in itertools.product(range(classes), itertools.combinations(range(each), 2)):
        weight = weights[k, i] * weights[k, j]
        total = total + weight * (unit[k, i] - unit[k, j]).square().sum()
        norm = norm + weight
    return total / norm


def test_vector_whatever_the_norms() -> None:
    want = pytest.approx(0.4266667, abs=1e-7)
    assert closeness_loss(POINTS[None]).item() == want
    scaled = POINTS * torch.tensor([[1e-30], [3.0], [1e30]], dtype=torch.float64)
    assert closeness_loss(scaled[None]).item() == want
    cosines = (POINTS @ POINTS.t())[torch.tril(torch.ones(3, 3), -1).bool()]
    assert closeness_loss(POINTS[None]).item() == pytest.approx(2 - 2 * cosines.mean().item())


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_naive_form_and_its_gradient(weighted: bool) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 7, 6, generator=g, dtype=torch.float64, requires_grad=True)
    w = torch.rand(5, 7, generator=g, dtype=torch.float64) if weighted else None
    loss, want = closeness_loss(x, w), naive(x, w)
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(v, x)[0] for v in (loss, want)))
    assert torch.autograd.gradcheck(lambda x: closeness_loss(x, w), (x,))


def test_gradient_at_unit_samples_is_the_stated_one() -> None:
    """∂/∂x̂_i = 4/(E(E−1))·Σ_j(x̂_i − x̂_j) a class, then through the normalisation."""
    x = POINTS[None].clone().requires_grad_()
    (got,) = torch.autograd.grad(closeness_loss(x), x)
    free = 4 / 6 * (3 * POINTS - POINTS.sum(dim=0))
    along = (free * POINTS).sum(dim=1, keepdim=True) * POINTS
    torch.testing.assert_close(got[0], free - along)


def test_near_coincident_samples_keep_their_digits_in_single_precision() -> None:
    g = torch.Generator().manual_seed(1)
    base = F.normalize(torch.randn(1, 1, 64, generator=g, dtype=torch.float64), dim=2)
    x = (base + 1e-5 * torch.randn(3, 7, 64, generator=g, dtype=torch.float64)).float()
    assert closeness_loss(x).item() == pytest.approx(naive(x.double()).item(), rel=1e-3)


def test_equal_weights_are_no_weights_and_a_class_without_weight_does_not_count() -> None:
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(closeness_loss(x, torch.full((2, 4), 0.3)), closeness_loss(x))
    first = torch.tensor([[1.0] * 4, [0.0] * 4])
    torch.testing.assert_close(closeness_loss(x, first), closeness_loss(x[:1]))


def test_degenerate_input_is_finite() -> None:
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
    nothing = closeness_loss(x, torch.zeros(2, 3))
    nothing.backward()
    assert nothing.item() == 0 and (x.grad == 0).all()
    same = torch.ones(1, 3, 4, requires_grad=True)
    loss = closeness_loss(same)
    loss.backward()
    assert loss.item() == 0 and (same.grad == 0).all()
    zero = torch.zeros(1, 3, 4)
    zero[0, 0, 0] = 1
    zero.requires_grad_()
    closeness_loss(zero).backward()
    assert torch.isfinite(zero.grad).all() and zero.grad.abs().max() < 10


@pytest.mark.parametrize("shape", [(3, 4), (2, 1, 4), (0, 3, 4)])
def test_shapes_are_checked(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"embeddings must be \(K, E, D\)"):
        closeness_loss(torch.ones(shape))
    with pytest.raises(ValueError, match=r"weights must be \(2, 3\)"):
        closeness_loss(torch.ones(2, 3, 4), torch.ones(2, 4))


@pytest.mark.parametrize("size", [1e-38, 1e-25, 1.0, 1e25, 3e38])
def test_directions_survive_the_range_of_floats(size: float) -> None:
    x = torch.tensor([[0.6, -0.8, 0.0], [0.0, 0.0, 0.0]]) * size
    torch.testing.assert_close(unit_directions(x)[0], torch.tensor([0.6, -0.8, 0.0]))
    assert (unit_directions(x)[1] == 0).all()
    assert unit_directions(x.to(torch.bfloat16)).dtype == torch.float32


def test_directions_have_the_gradient_of_normalising() -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    x.requires_grad_()
    assert torch.autograd.gradcheck(unit_directions, (x,))
    assert torch.autograd.gradgradcheck(unit_directions, (x,))
