"""AdaCos's scale by hand; tests/distributed/test_head.py has its gradients at any world size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.adacos import AdaCos


def cosines(head: ClassifierHead, x: torch.Tensor) -> np.ndarray:
    w = head.weight.detach().double().numpy()
    x = x.double().numpy()
    x, w = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, w))
    return x @ w.T


def test_fixed_scale_is_that_of_the_number_of_classes() -> None:
    head = ClassifierHead(10_572, 4, AdaCos(dynamic=False), mma_weight=0.0)
    first = math.sqrt(2) * math.log(10_571)
    assert (
        head.state_tensors()["s"].item() == pytest.approx(first) == pytest.approx(13.10, abs=0.01)
    )
    torch.manual_seed(0)
    x, y = torch.randn(6, 4), torch.randint(0, 9, (6,))
    loss = head(x, y).loss.item()
    logits = torch.from_numpy(first * cosines(head, x))
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, y).item(), rel=1e-6)
    assert head.state_tensors()["s"].item() == pytest.approx(first), "it stays"


def test_dynamic_scale_follows_the_batches() -> None:
    torch.manual_seed(0)
    head = ClassifierHead(9, 4, AdaCos(), mma_weight=0.0)
    s = math.sqrt(2) * math.log(8)
    seen = [s]
    for step in range(4):
        y = torch.randint(0, 9, (7,))
        # At first far from their own class, then near: above π/4 the angle does not count.
        x = 0.2 * step * head.weight.detach()[y] / 0.02 + torch.randn(7, 4)
        loss = head(x, y, step).loss.item()
        c = cosines(head, x)
        terms = [sum(math.exp(s * c[i, j]) for j in range(9) if j != y[i]) for i in range(7)]
        angles = sorted(math.acos(c[i, y[i]]) for i in range(7))
        s = math.log(sum(terms) / 7) / math.cos(min(math.pi / 4, angles[3]))
        assert head.state_tensors()["s"].item() == pytest.approx(s, rel=1e-5)
        want = [-math.log(math.exp(s * c[i, y[i]]) / np.exp(s * c[i]).sum()) for i in range(7)]
        assert loss == pytest.approx(sum(want) / 7, rel=1e-5), "the new scale scores the batch"
        seen.append(s)
    assert max(seen) - min(seen) > 0.1
    head.eval()
    head(x, y)
    assert head.state_tensors()["s"].item() == pytest.approx(s, rel=1e-5), "eval moves nothing"


def test_a_batch_without_a_scale_above_zero_leaves_it() -> None:
    margin = AdaCos()
    state = {"s": torch.tensor(3.0)}
    opposite = torch.tensor([[-2.0, 0.3], [-3.0, 0.2]])  # e^rivals is below 1 on average
    assert margin.after_step(state, opposite)["s"] == 3.0
    assert margin.after_step(state, -opposite.abs() * torch.tensor([-1, 1]))["s"] > 0


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 of 2 classes take part"):
        ClassifierHead(2, 4, AdaCos())
    with pytest.raises(ValueError, match="2 of 20 classes take part"):
        ClassifierHead(20, 4, AdaCos(), sample_rate=0.1)
    sampled = ClassifierHead(20, 4, AdaCos(), sample_rate=0.5)
    assert sampled.state_tensors()["s"].item() == pytest.approx(math.sqrt(2) * math.log(9))
