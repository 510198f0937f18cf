"""Diversity: test vectors, exact gradients, no overflow."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from arcface_plus.losses.closeness import diversity
from arcface_plus.losses.closeness.diversity import truncated_similarity

COSINES = torch.tensor([[0.5, -0.2, 0.1]], dtype=torch.float64)
CENTRES = torch.tensor(
    [[0.5, math.sqrt(0.75), 0], [-0.2, math.sqrt(0.96), 0], [0.1, 0, math.sqrt(0.99)]],
    dtype=torch.float64,
)
E1 = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)


def diversity_loss(x: torch.Tensor, centres: torch.Tensor, scale=64.0, weights=None):
    """Return the loss where one rank has all centres."""
    return diversity.diversity_loss(x, centres, len(centres), scale, weights)


def naive(x: torch.Tensor, centres: torch.Tensor, scale: float, weights=None) -> torch.Tensor:
    cosine = F.normalize(x, dim=1) @ F.normalize(centres, dim=1).t()
    t = torch.where(cosine > 0, scale, 0.0)
    each = (t * cosine**2).exp().mean(dim=1).log()
    return each.mean() if weights is None else (weights * each).sum() / weights.sum()


@pytest.mark.parametrize(
    ("cosine", "scale", "want"),
    [(COSINES, 4.0, 0.4614447), (COSINES, 64.0, 14.9013880), (COSINES[:, :1], 64.0, 16.0)],
)
def test_vectors(cosine: torch.Tensor, scale: float, want: float) -> None:
    centres = CENTRES[: cosine.shape[1]]
    assert diversity_loss(E1, centres, scale).item() == pytest.approx(want, abs=1e-7)


def test_gradient_of_a_free_direction_and_through_the_normalisation() -> None:
    unit = E1.clone().requires_grad_()
    cosine = unit @ CENTRES.t()
    free_loss = truncated_similarity(cosine, 4.0).logsumexp(dim=1).sum()
    (free,) = torch.autograd.grad(free_loss, unit)
    want = torch.tensor([[1.159849, 1.978613, 0.174083]], dtype=torch.float64)
    torch.testing.assert_close(free, want, rtol=0, atol=1e-6)
    share = truncated_similarity(COSINES, 4.0).softmax(dim=1)
    shares = torch.tensor([[0.571176, 0.210124, 0.218699]], dtype=torch.float64)
    torch.testing.assert_close(share, shares, rtol=0, atol=1e-6)
    x = (3 * E1).requires_grad_()
    (got,) = torch.autograd.grad(diversity_loss(x, CENTRES, 4.0), x)
    # (I − x̂x̂ᵀ)/‖x‖ takes the part along e1 away and divides by 3.
    torch.testing.assert_close(got, want * torch.tensor([0.0, 1.0, 1.0]) / 3, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cosine", [-1.0, -0.3, 0.0, 0.2, 0.5, 1.0])
def test_a_single_pair_has_the_gradient_of_the_supplement(cosine: float) -> None:
    """Eq. (1): ∂L/∂x = T·∂D/∂x = T·2cosθ·w, cut off beyond a right angle."""
    w = torch.tensor([[cosine, math.sqrt(1 - cosine**2)]], dtype=torch.float64)
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    (free,) = torch.autograd.grad(truncated_similarity(x @ w.t()).sum(), x)
    torch.testing.assert_close(free, (64.0 if cosine > 0 else 0.0) * 2 * cosine * w)


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_naive_form_and_its_gradient(weighted: bool) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 6, generator=g, dtype=torch.float64, requires_grad=True)
    centres = torch.randn(9, 6, generator=g, dtype=torch.float64, requires_grad=True)
    w = torch.rand(5, generator=g, dtype=torch.float64) if weighted else None
    loss, want = diversity_loss(x, centres, 8.0, w), naive(x, centres, 8.0, w)
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(v, x)[0] for v in (loss, want)))
    assert torch.autograd.gradcheck(lambda x: diversity_loss(x, centres.detach(), 8.0, w), (x,))
    diversity_loss(x, centres, 8.0, w).backward()
    assert centres.grad is None, "centres are constants"


def test_large_scales_do_not_overflow() -> None:
    x = E1.float().requires_grad_()
    loss = diversity_loss(x, CENTRES.float(), scale=1e6)
    assert loss.item() == pytest.approx(1e6 / 4 - math.log(3), rel=1e-6)
    loss.backward()
    assert torch.isfinite(x.grad).all()


def test_degenerate_input_is_finite() -> None:
    x = E1.clone().requires_grad_()
    behind = diversity_loss(x, -E1)
    behind.backward()
    assert behind.item() == 0 and (x.grad == 0).all()
    zero = torch.zeros(1, 3, requires_grad=True)
    loss = diversity_loss(zero, torch.cat([CENTRES.float(), torch.zeros(1, 3)]))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and torch.isfinite(zero.grad).all()
    assert diversity_loss(E1, CENTRES, weights=torch.zeros(1)).item() == 0


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"of the same D, got \(1, 3\) and \(3, 2\)"):
        diversity_loss(E1, CENTRES[:, :2])
    with pytest.raises(ValueError, match="at least one"):
        diversity_loss(E1[:0], CENTRES)
    with pytest.raises(ValueError, match=r"weights must be \(1,\)"):
        diversity_loss(E1, CENTRES, weights=torch.ones(2))
    with pytest.raises(ValueError, match="a centre between them"):
        diversity_loss(E1, CENTRES[:0])
