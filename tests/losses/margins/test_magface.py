from __future__ import annotations

import math

import pytest
import torch

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.magface import MagFace, magnitude_margin, magnitude_penalty


def test_vector(score) -> None:
    output = score(MagFace(), norm=60.0)
    assert output.norm_penalty.item() == pytest.approx(0.0216253, abs=1e-7)
    assert output.classification.item() == pytest.approx(30.8159966, abs=1e-6)
    assert output.loss.item() == pytest.approx(31.5728836, abs=1e-6)
    assert output.quality.tolist() == [60.0]


def test_margin_and_penalty_between_and_beyond_the_ends() -> None:
    norm = torch.tensor([1.0, 10, 60, 110, 500], dtype=torch.float64, requires_grad=True)
    settings = MagFace()
    margin = magnitude_margin(norm, settings)
    assert margin.tolist() == pytest.approx([0.45, 0.45, 0.625, 0.8, 0.8])
    penalty = magnitude_penalty(norm, settings)
    assert penalty[2].item() == pytest.approx(1 / 60 + 60 / 110**2)
    assert (penalty[1:4].diff() < 0).all(), "larger norms cost less"
    (margin.sum() + penalty.sum()).backward()
    assert norm.grad[0] == 0 and norm.grad[4] == 0, "the clamp stops the gradient"
    assert norm.grad[2].item() == pytest.approx(0.35 / 100 + 1 / 110**2 - 1 / 60**2)


def test_pull_on_the_norm_is_the_one_of_the_formula() -> None:
    """∂CE/∂a = s·K·sin(θ + m)·(1 − p), and λ_g·(1/u_a² − 1/a²)."""
    torch.manual_seed(0)
    margin = MagFace(s=8, penalty=2.0)
    head = ClassifierHead(2, 3, margin, mma_weight=0.0).double()
    direction = torch.nn.functional.normalize(torch.randn(1, 3, dtype=torch.float64))
    with torch.no_grad():
        head.weight[0] = direction[0] + 0.3
    a = torch.tensor(50.0, dtype=torch.float64, requires_grad=True)
    output = head(a * direction, torch.tensor([0]))
    output.loss.backward()
    theta = output.target_cosine.acos().item()
    m, slope = magnitude_margin(torch.tensor(50.0).double(), margin).item(), 0.35 / 100
    one_minus_p = 1 - math.exp(-output.classification.item())
    want = 8 * slope * math.sin(theta + m) * one_minus_p + 2 * (1 / 110**2 - 1 / 50**2)
    assert a.grad.item() == pytest.approx(want, rel=1e-9)


def test_without_penalty_there_is_none() -> None:
    head = ClassifierHead(5, 3, MagFace(penalty=0.0), mma_weight=0.0)
    output = head(torch.randn(2, 3) * 20, torch.tensor([0, 4]))
    assert output.norm_penalty is None and output.loss is output.classification


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"l_a": 120.0}, "l_a is 120.0 and u_a is 110.0, but l_a must be the smaller"),
        ({"u_m": 0.4}, "l_m must be the smaller"),
        ({"penalty": -1.0}, r"MagFace\npenalty\n"),
        ({"l_a": 0.0}, r"MagFace\nl_a\n"),
        ({"u_m": 2.0}, r"MagFace\nu_m\n.*1\.57"),
    ],
)
def test_refuses(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        MagFace(**arguments)
