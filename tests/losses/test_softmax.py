from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from arcface_plus.losses.softmax import HardNegatives, OtherLogits, cross_entropy_of, shard_scores


def reference(x, w, target, form, bias=None):
    """One sample at a time."""
    own, others = [], []
    w = F.normalize(w, dim=1) if form.unit else w
    for i in range(len(x)):
        products = w @ x[i]
        mine = 0 <= target[i] < len(w)
        own.append(products[target[i]] if mine else 0 * products.sum())
        logits = form.scale * products
        if form.hard is not None:
            limit = form.hard.threshold[i]
            bent = [
                form.hard.square * p * p + form.hard.slope * p + form.hard.shift if p > limit else p
                for p in products
            ]
            logits = form.scale * torch.stack(bent)
        if form.relu:
            logits = logits.clamp_min(0)
        if form.limit is not None:
            logits = torch.where(products > form.limit, torch.zeros_like(logits), logits)
        if bias is not None:
            logits = logits + bias
        keep = [j for j in range(len(w)) if j != target[i]]
        if form.sums == "softplus":
            others.append(torch.log1p(logits[keep].exp()).sum())
        else:
            others.append(torch.logsumexp(logits[keep], 0))
    return torch.stack(own), torch.stack(others)


@pytest.fixture
def problem():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(7, 5, generator=g, dtype=torch.float64)
    w = torch.randn(11, 5, generator=g, dtype=torch.float64)
    target = torch.tensor([0, 10, 3, -1, -4, 3, 6])
    return x, w, target


THRESHOLD = torch.tensor([-0.5, 0.0, 0.3, 2.0, -2.0, 0.1, 0.2], dtype=torch.float64)
FORMS = [
    OtherLogits(scale=3.0),
    OtherLogits(unit=False),
    OtherLogits(scale=2.0, relu=True),
    OtherLogits(scale=2.0, limit=0.4),
    OtherLogits(scale=2.0, unit=False, relu=True, limit=0.7),
    OtherLogits(scale=3.0, hard=HardNegatives(THRESHOLD, slope=1.3, shift=0.3)),
    OtherLogits(
        scale=2.0,
        hard=HardNegatives(THRESHOLD, square=1.0, slope=torch.tensor(0.3, dtype=torch.float64)),
    ),
    OtherLogits(
        scale=2.0,
        relu=True,
        limit=0.8,
        hard=HardNegatives(THRESHOLD, square=0.5, slope=0.7, shift=-0.1),
        sums="softplus",
    ),
    OtherLogits(scale=3.0, sums="softplus"),
]


@pytest.mark.parametrize("chunk", [None, 1, 4, 11, 100])
@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_equals_a_loop_forward_and_backward(problem, chunk, form) -> None:
    x, w, target = problem
    a, b = (t.clone().requires_grad_() for t in (x, w))
    c, d = (t.clone().requires_grad_() for t in (x, w))
    got = shard_scores(a, b, target, form, chunk=chunk)
    want = reference(c, d, target, form)
    weights = torch.linspace(-1, 2, 14, dtype=torch.float64).split(7)
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    sum((part * weight).sum() for part, weight in zip(got, weights, strict=True)).backward()
    sum((part * weight).sum() for part, weight in zip(want, weights, strict=True)).backward()
    torch.testing.assert_close(a.grad, c.grad, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(b.grad, d.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_bias_of_the_others(problem, chunk, form) -> None:
    x, w, target = problem
    bias = torch.linspace(-1, 1, 11, dtype=torch.float64)
    mine, theirs = ([t.clone().requires_grad_() for t in (x, w, bias)] for _ in range(2))
    got = shard_scores(mine[0], mine[1], target, form, bias=mine[2], chunk=chunk)
    want = reference(theirs[0], theirs[1], target, form, theirs[2])
    weights = torch.linspace(-1, 2, 14, dtype=torch.float64).split(7)
    for scores in (got, want):
        sum((s * c).sum() for s, c in zip(scores, weights, strict=True)).backward()
    for a, b in zip(
        [*got, *(t.grad for t in mine)], [*want, *(t.grad for t in theirs)], strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_many_blocks_are_one(problem, monkeypatch) -> None:
    """Blocks that only pass through memory change nothing."""
    from arcface_plus.losses import softmax

    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(3, 4, generator=g), torch.randn(3000, 4, generator=g)
    target = torch.tensor([0, 2999, 1500])
    whole = shard_scores(x, w, target, FORMS[0])
    monkeypatch.setattr(softmax, "_BLOCK_NUMBERS", 1)
    blocked = shard_scores(x, w, target, FORMS[0])
    for one, many in zip(whole, blocked, strict=True):
        torch.testing.assert_close(one, many)


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("form", [FORMS[k] for k in (0, 1, 5, 6, 8)], ids=range(5))
def test_gradcheck(problem, chunk, form) -> None:
    x, w, target = problem
    x, w = x.requires_grad_(), w.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: shard_scores(a, b, target, form, chunk=chunk), (x, w)
    )


def test_shard_with_only_the_samples_own_class_adds_nothing() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    w = torch.randn(1, 3, requires_grad=True)
    _, others = shard_scores(x, w, torch.tensor([0, -1]), OtherLogits())
    assert others[0] == -torch.inf and torch.isfinite(others[1])
    torch.logsumexp(torch.stack([others, torch.zeros(2)]), 0).sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(w.grad).all()
    assert (x.grad[0] == 0).all()


def test_empty_shard() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    w = torch.empty(0, 3, requires_grad=True)
    own, others = shard_scores(x, w, torch.tensor([-1, -1]), OtherLogits())
    assert (others == -torch.inf).all() and (own == 0).all()
    (own.sum() + torch.logsumexp(torch.stack([others, torch.zeros(2)]), 0).sum()).backward()
    assert (x.grad == 0).all() and w.grad.shape == (0, 3)
    _, others = shard_scores(x, w, torch.tensor([-1, -1]), OtherLogits(sums="softplus"))
    assert (others == 0).all()


def test_softplus_of_far_scores_stays_finite_and_exact() -> None:
    x = torch.tensor([[1.0, 0.0]], requires_grad=True)
    w = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    form = OtherLogits(scale=500.0, sums="softplus")
    _, others = shard_scores(x, w, torch.tensor([-1]), form)
    others.backward()
    assert others.item() == 500 and torch.isfinite(x.grad).all()


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
