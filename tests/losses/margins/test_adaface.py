from __future__ import annotations

import math

import pytest
import torch

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.adaface import AdaFace, adaptive_cosine, norm_score

MU, SIGMA = torch.tensor(20.0).double(), torch.tensor(5.0).double()


def test_vector(score) -> None:
    z = norm_score(torch.tensor(25.0).double(), MU, SIGMA, AdaFace())
    assert z.item() == pytest.approx(0.3329334, abs=1e-7)
    target = adaptive_cosine(torch.tensor(0.6).double(), z, AdaFace())
    assert target.item() == pytest.approx(0.1677380, abs=1e-7)
    output = score(AdaFace(), {"mean": 20.0, "deviation": 5.0}, norm=25.0)
    others = math.log(math.exp(64 * 0.5) + math.exp(64 * 0.1))
    assert output.loss.item() == pytest.approx(
        math.log1p(math.exp(others - 64 * 0.1677380)), abs=1e-5
    )
    assert output.quality.tolist() == [25.0]


def test_score_is_held_in_one_deviation_and_knows_no_gradient() -> None:
    norm = torch.tensor([0.0, 20.0, 1e9], dtype=torch.float64, requires_grad=True)
    z = norm_score(norm, MU, SIGMA, AdaFace())
    assert z.tolist() == [-1.0, 0.0, 1.0] and not z.requires_grad


def test_shifted_angle_stays_inside_and_its_slope_stops() -> None:
    cosine = torch.tensor([0.999999, -0.999999, 0.3], dtype=torch.float64, requires_grad=True)
    z = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
    value = adaptive_cosine(cosine, z, AdaFace())
    assert value[0].item() == pytest.approx(math.cos(1e-3) - 0.8)
    assert value[1].item() == pytest.approx(-math.cos(1e-3))
    value.sum().backward()
    assert cosine.grad[0] == 0 and cosine.grad[1] == 0 and cosine.grad[2] > 0


def test_averages_follow_mean_and_deviation_of_the_batch() -> None:
    torch.manual_seed(0)
    head = ClassifierHead(9, 4, AdaFace(s=8), mma_weight=0.0)
    mean, deviation = 20.0, 100.0
    for step in range(3):
        x = torch.randn(6, 4) * 10
        head(x, torch.randint(0, 9, (6,)), step)
        norms = x.norm(dim=1)
        mean = 0.99 * mean + 0.01 * norms.mean().item()
        deviation = 0.99 * deviation + 0.01 * norms.std().item()
        state = {name: value.item() for name, value in head.state_tensors().items()}
        assert state == pytest.approx({"mean": mean, "deviation": deviation}, rel=1e-5)


def test_a_batch_that_tells_nothing_leaves_the_averages() -> None:
    head = ClassifierHead(9, 4, AdaFace(s=8), mma_weight=0.0)
    head(torch.ones(1, 4), torch.tensor([0]))  # one sample has no deviation
    assert head.state_tensors()["deviation"] == 100 and head.state_tensors()["mean"] < 20
    before = head.state_tensors()["mean"].item()
    head(torch.full((2, 4), math.nan), torch.tensor([0, 1]))
    assert head.state_tensors()["mean"] == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"h": 0.0}, r"AdaFace\nh\n.*greater than 0"),
        ({"momentum": -0.1}, r"AdaFace\nmomentum\n"),
        ({"eps": 0.5}, r"AdaFace\neps\n.*0\.1"),
    ],
)
def test_refuses(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        AdaFace(**arguments)
