"""Several centres a class; tests/distributed/test_head.py has them at any world size."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from arcface_plus.losses.head.centres import Centres
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.margins.magface import MagFace
from arcface_plus.regularizers.mma import mma_loss


def head_of(**options: object) -> ClassifierHead:
    settings = {"mma_weight": 0.0, "centres": 3, "margin": Margin(s=8)} | options
    return ClassifierHead(7, 5, **settings)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 5), torch.tensor([0, 1, 1, 4, 6, 6])


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_nearest_centre_of_every_class_counts(chunk) -> None:
    head = head_of(class_chunk=chunk)
    x, y = batch()
    x.requires_grad_()
    output = head(x, y)
    output.loss.backward()
    w = head.weight.detach().double().requires_grad_()
    z = x.detach().double().requires_grad_()
    every = (F.normalize(z) @ F.normalize(w).t()).view(6, 7, 3)
    cosine = every.max(dim=2).values
    own = cosine[torch.arange(6), y]
    target = torch.cos(own.acos() + 0.5)
    logits = 8 * cosine.scatter(1, y[:, None], target[:, None])
    want = F.cross_entropy(logits, y)
    assert output.loss.item() == pytest.approx(want.item(), rel=1e-6)
    want.backward()
    torch.testing.assert_close(head.weight.grad.double(), w.grad, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(x.grad.double(), z.grad, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(output.target_cosine.double(), own.detach(), atol=1e-6, rtol=0)
    # Centres that are nearest to no sample stand still.
    moved = head.weight.grad.view(7, 3, 5).abs().sum(2) > 0
    nearest = F.one_hot(every.argmax(2), 3).sum(0) > 0
    assert torch.equal(moved, nearest) and not moved.all()


def test_one_centre_is_the_plain_head_to_the_bit() -> None:
    x, y = batch()
    plain, one = (ClassifierHead(7, 5, Margin(s=8), **o) for o in ({}, {"centres": 1}))
    assert torch.equal(plain(x, y).loss, one(x, y).loss)
    assert one.class_weights() is one.weight and one.sharded_state() == {}


def test_the_dominant_centre_is_that_of_most_recent_images() -> None:
    head = head_of()
    with torch.no_grad():
        head.weight.zero_()
        rows = head.weight.view(7, 3, 5)
        rows[:] = torch.eye(5)[:3]
    first, second = torch.eye(5)[0:1], torch.eye(5)[1:2]
    label = torch.tensor([2])
    assert torch.equal(head.class_weights()[2], first[0]), "before any image the first"
    for _ in range(3):
        head(second, label)
    head(first, label)
    assert head.sharded_state()["centre_counts"][2].tolist() == [1, 3, 0]
    assert torch.equal(head.class_weights()[2], second[0])
    head.eval()(first, label)
    assert head.centres.counts[2].tolist() == [1, 3, 0], "eval counts nothing"
    head.train()
    for _ in range(70):  # the past fades: 64 images halve it
        head(first, label)
    assert torch.equal(head.class_weights()[2], first[0])
    assert 32 <= head.centres.counts[2].sum() <= 64
    poisoned = torch.full((1, 5), math.nan)
    before = head.centres.counts.clone()
    head(poisoned, label)
    assert torch.equal(head.centres.counts, before)


def test_counts_do_not_depend_on_micro_batches() -> None:
    torch.manual_seed(3)
    x, y = torch.randn(90, 5), torch.randint(0, 3, (90,))
    found = []
    for cuts in ([90], [40, 1, 49]):
        head = head_of()
        for step in range(3):
            plan = head.plan_step(y, step)
            for a, b in zip(x.split(cuts), y.split(cuts), strict=True):
                head(a, b, plan=plan)
        found.append(head.centres.counts)
    assert torch.equal(*found) and found[0].sum() > 60


def test_mma_compares_dominant_centres_of_different_classes() -> None:
    """Never two centres of one class, which may well lie close together."""
    head = head_of(mma_weight=1.0)
    x, y = batch()
    head(x, y)
    assert (head.centres.counts.argmax(1) > 0).any()
    head.zero_grad()
    output = head.eval()(x, y, with_mma=True)
    rows = head.class_weights().detach().requires_grad_()
    want = mma_loss(rows)
    assert output.mma.item() == pytest.approx(want.item(), rel=1e-6)
    (output.loss - output.classification).backward()
    (gradient,) = torch.autograd.grad(want, rows)
    got = head.weight.grad.view(7, 3, 5)
    dominant = head.centres.counts.argmax(1)
    torch.testing.assert_close(got[torch.arange(7), dominant], gradient, atol=1e-6, rtol=1e-4)
    others = got.clone()
    others[torch.arange(7), dominant] = 0
    assert not others.any()


def test_margins_that_look_at_norms_know_centres_too() -> None:
    x, y = batch()
    output = head_of(margin=MagFace(l_a=0.5, u_a=9, s=4))(x, y)
    assert torch.isfinite(output.loss) and output.quality.shape == (6,)


@pytest.mark.parametrize("count", [0, 256])
def test_counts_out_of_range_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"centres is {count}, but must lie in 1 to 255"):
        Centres(3, count)
    with pytest.raises(ValueError, match="linear logits know one row a class"):
        ClassifierHead(3, 2, None, centres=2)
