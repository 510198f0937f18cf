from __future__ import annotations

import math

import pytest
import torch

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.uniface import UniFace, first_threshold, unified_cross_entropy


def test_vector(score) -> None:
    """Three of C = 10 572 classes: b = 11.5685494, L = 20.6932172."""
    b = first_threshold(10572, 1.0)
    assert b == pytest.approx(11.5685494, abs=1e-7)
    output = score(UniFace(), {"threshold": b})
    assert output.loss.item() == pytest.approx(20.6932172, abs=1e-6)


def test_threshold_starts_from_the_classes_that_take_part() -> None:
    sampled = ClassifierHead(1000, 4, UniFace(), sample_rate=0.1)
    assert sampled.replicated_parameters()["threshold"].item() == pytest.approx(math.log(1000))
    told = ClassifierHead(1000, 4, UniFace(rate=0.5), sample_rate=0.1)
    assert told.replicated_parameters()["threshold"].item() == pytest.approx(math.log(5000))


def test_threshold_is_learned() -> None:
    torch.manual_seed(0)
    head = ClassifierHead(8, 4, UniFace(s=8), mma_weight=0.0).double()
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 7, 3, 3, 1])
    (b,) = head.replicated_parameters().values()
    head(x, y).loss.backward()
    losses = []
    for shift in (1e-5, -1e-5):
        with torch.no_grad():
            b += shift
            losses.append(head(x, y).loss.item())
            b -= shift
    assert b.grad.item() == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-7)


def test_far_scores_keep_digits_and_gradient() -> None:
    """Beyond ±s too, where published code holds the exponent."""
    target = torch.tensor([90.0, -90.0], requires_grad=True)
    loss = unified_cross_entropy(target, torch.zeros(2), 1.0)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([math.exp(-90), 90.0])
    assert target.grad[1].item() == -1 and target.grad[0].item() == pytest.approx(-math.exp(-90))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 1.5}, r"UniFace\nrate\n"),
        ({"negatives": 0.0}, r"UniFace\nnegatives\n"),
        ({"s": -1}, r"UniFace\ns\n.*-1"),
    ],
)
def test_refuses(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        UniFace(**arguments)
