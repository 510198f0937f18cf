from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from arcface_plus.losses.softmax import cross_entropy_of, others_logsumexp


def reference(x, w, target, scale, relu, limit=None):
    """One row at a time."""
    rows = []
    for i in range(len(x)):
        logits = scale * (w @ x[i])
        if relu:
            logits = logits.clamp_min(0)
        if limit is not None:
            logits = torch.where(logits > scale * limit, torch.zeros_like(logits), logits)
        keep = [j for j in range(len(w)) if j != target[i]]
        rows.append(torch.logsumexp(logits[keep], 0))
    return torch.stack(rows)


@pytest.fixture
def problem():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(7, 5, generator=g, dtype=torch.float64)
    w = torch.randn(11, 5, generator=g, dtype=torch.float64)
    target = torch.tensor([0, 10, 3, -1, -4, 3, 6])
    return x, w, target


@pytest.mark.parametrize("chunk", [None, 1, 4, 11, 100])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("limit", [None, 0.4])
def test_equals_a_loop_forward_and_backward(problem, chunk, relu, limit) -> None:
    x, w, target = problem
    a, b = (t.clone().requires_grad_() for t in (x, w))
    c, d = (t.clone().requires_grad_() for t in (x, w))
    got = others_logsumexp(a, b, target, scale=3.0, relu=relu, limit=limit, chunk=chunk)
    want = reference(c, d, target, 3.0, relu, limit)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    weights = torch.linspace(-1, 2, 7, dtype=torch.float64)
    (got * weights).sum().backward()
    (want * weights).sum().backward()
    torch.testing.assert_close(a.grad, c.grad, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(b.grad, d.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("chunk", [None, 3])
def test_gradcheck(problem, chunk) -> None:
    x, w, target = problem
    x, w = x.requires_grad_(), w.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: others_logsumexp(a, b, target, scale=1.5, chunk=chunk), (x, w)
    )


def test_shard_with_only_the_samples_own_class_adds_nothing() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    w = torch.randn(1, 3, requires_grad=True)
    out = others_logsumexp(x, w, torch.tensor([0, -1]))
    assert out[0] == -torch.inf and torch.isfinite(out[1])
    torch.logsumexp(torch.stack([out, torch.zeros(2)]), 0).sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(w.grad).all()
    assert (x.grad[0] == 0).all()


def test_empty_shard() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    w = torch.empty(0, 3, requires_grad=True)
    out = others_logsumexp(x, w, torch.tensor([-1, -1]))
    assert (out == -torch.inf).all()
    torch.logsumexp(torch.stack([out, torch.zeros(2)]), 0).sum().backward()
    assert (x.grad == 0).all() and w.grad.shape == (0, 3)


def test_cross_entropy_is_torchs() -> None:
    logits = torch.randn(6, 9, dtype=torch.float64) * 5
    label = torch.arange(6)
    others = logits.scatter(1, label[:, None], -torch.inf).logsumexp(1)
    got = cross_entropy_of(logits.gather(1, label[:, None]).squeeze(1), others)
    torch.testing.assert_close(got, F.cross_entropy(logits, label, reduction="none"))


def test_well_fitted_samples_keep_their_digits() -> None:
    """Where p − 1 cancels in float32, value and gradient are still right to a part in 10⁶."""
    target = torch.tensor([40.0], requires_grad=True)
    others = torch.tensor([18.0], requires_grad=True)
    loss = cross_entropy_of(target, others)
    loss.backward()
    true = torch.log1p(torch.exp(torch.tensor(-22.0, dtype=torch.float64))).item()
    assert loss.item() == pytest.approx(true, rel=1e-5)
    assert target.grad.item() == pytest.approx(-true, rel=1e-5)
    plain = torch.tensor([[40.0, 18.0]], requires_grad=True)
    F.cross_entropy(plain, torch.tensor([0])).backward()
    assert plain.grad[0, 0].item() != pytest.approx(-true, rel=1e-2)


def test_extreme_gaps_stay_finite() -> None:
    target = torch.tensor([500.0, -500.0], requires_grad=True)
    loss = cross_entropy_of(target, torch.tensor([-500.0, 500.0]))
    loss.sum().backward()
    assert loss.tolist() == [0.0, 1000.0]
    assert target.grad.tolist() == [0.0, -1.0]
