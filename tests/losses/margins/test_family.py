from __future__ import annotations

import math

import pytest
import torch

from arcface_plus.losses.margins.family import Margin, margin_logits, target_logit

RECIPES = [
    Margin(),
    Margin(m2=0.0),
    Margin(m2=0.0, m3=0.35),
    Margin(m2=0.3, m3=0.2),
    Margin(m1=1.35, m2=0.0, extension="piecewise"),
    Margin(m0=0.4, m2=0.0, wc_relu=True),
]


def reference(theta: float, margin: Margin) -> float:
    """The formula in plain Python, below the angle where extensions begin."""
    return margin.s * (margin.m0 * math.cos(margin.m1 * theta + margin.m2) - margin.m3)


@pytest.mark.parametrize("margin", RECIPES, ids=str)
def test_value_is_the_formula_within_its_range(margin: Margin) -> None:
    for theta in (0.2, 0.7, 1.3, 1.9):
        value = target_logit(torch.tensor([math.cos(theta)], dtype=torch.float64), margin)
        assert value.item() == pytest.approx(reference(theta, margin), abs=1e-10)


def test_arcface_vector() -> None:
    """cosines (.6 target, .5, .1): cos(θ + .5) = 0.1430091 and the loss at s = 64."""
    cosine = torch.tensor([[0.6, 0.5, 0.1]], dtype=torch.float64)
    label = torch.tensor([0])
    logits = margin_logits(cosine, label, Margin())
    assert logits[0, 0].item() / 64 == pytest.approx(0.1430091, abs=1e-7)
    loss = torch.nn.functional.cross_entropy(logits, label)
    assert loss.item() == pytest.approx(22.8474172, abs=1e-6)
    cosface = margin_logits(cosine, label, Margin(m2=0.0, m3=0.35))
    loss = torch.nn.functional.cross_entropy(cosface, label)
    assert loss.item() == pytest.approx(16.0000001, abs=1e-6)


EXTENSIONS = ["raw", "hard", "easy", "clamp", "piecewise"]
FAMILY = {
    "none": {"m2": 0.0},
    "amp": {"m0": 0.4, "m2": 0.0},
    "sphere": {"m1": 1.35, "m2": 0.0},
    "sphere beyond 2π": {"m1": 2.5, "m2": 0.0},
    "arc": {"m2": 0.5},
    "cos": {"m2": 0.0, "m3": 0.35},
    "all": {"m0": 0.9, "m1": 1.2, "m2": 0.3, "m3": 0.1},
}


def by_hand(theta: float, margin: Margin) -> float:
    """The five extensions in plain Python, as the formula sheet writes them."""
    phi, cosine = margin.m1 * theta + margin.m2, math.cos(theta)
    if margin.extension == "easy" and cosine <= 0:
        return margin.s * cosine
    shifted = math.cos(phi)
    if phi > math.pi and margin.is_angular:
        if margin.extension == "piecewise":
            k = math.floor(phi / math.pi)
            shifted = (-1) ** k * math.cos(phi) - 2 * k
        elif margin.extension == "clamp":
            shifted = -1.0
        elif margin.extension == "hard" and margin.m1 == 1:
            shifted = cosine - margin.m2 * math.sin(margin.m2)
        elif margin.extension == "hard":
            shifted = cosine - math.cos((math.pi - margin.m2) / margin.m1) - 1
    return margin.s * (margin.m0 * shifted - margin.m3)


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("name", FAMILY)
def test_value_on_the_whole_half_circle(name: str, extension: str) -> None:
    margin = Margin(**FAMILY[name], s=8, extension=extension)
    theta = torch.linspace(0.013, math.pi - 0.013, 97, dtype=torch.float64)
    want = torch.tensor([by_hand(t, margin) for t in theta.tolist()], dtype=torch.float64)
    torch.testing.assert_close(target_logit(theta.cos(), margin), want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("name", FAMILY)
def test_gradcheck(name: str, extension: str) -> None:
    margin = Margin(**FAMILY[name], s=8, extension=extension)
    cosine = torch.linspace(-0.98, 0.98, 41, dtype=torch.float64)
    # Off the kinks: where the angle passes multiples of π, and 0 for easy.
    phi = (margin.m1 * cosine.acos() + margin.m2) / math.pi
    cosine = cosine[((phi - phi.round()).abs() > 1e-3) & (cosine.abs() > 1e-3)].requires_grad_()
    assert len(cosine) > 35
    assert torch.autograd.gradcheck(lambda c: target_logit(c, margin), (cosine,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("name", FAMILY)
def test_value_and_slope_are_finite_everywhere(name, extension, dtype) -> None:
    ends = torch.tensor([-1.0, 1.0, -1.0000001, 1.0000001, -1.001, 1.001, 0.0], dtype=dtype)
    cosine = torch.cat([ends, torch.linspace(-1, 1, 1001, dtype=dtype)]).requires_grad_()
    value = target_logit(cosine, Margin(**FAMILY[name], extension=extension))
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(cosine.grad).all()


@pytest.mark.parametrize("extension", ["hard", "clamp", "piecewise"])
@pytest.mark.parametrize(
    "parameters", [(1.0, 0.5), (1.0, 1.2), (1.35, 0.0), (1.85, 0.0), (2.5, 0.0), (1.2, 0.3)]
)
def test_falls_with_the_angle_from_0_to_pi(extension: str, parameters: tuple[float, float]) -> None:
    m1, m2 = parameters
    theta = torch.linspace(0, math.pi, 4001, dtype=torch.float64)
    for m0 in (1.0, 0.4):
        margin = Margin(m0=m0, m1=m1, m2=m2, m3=0.1, extension=extension)
        target = target_logit(theta.cos(), margin)
        assert (target.diff() <= 1e-9).all() and target[0] - target[-1] > m0


def test_hard_arcface_drops_where_its_extension_begins() -> None:
    """By 0.1173 at θ = π − 0.5."""
    theta = torch.tensor([math.pi - 0.5 - 1e-9, math.pi - 0.5 + 1e-9], dtype=torch.float64)
    before, after = target_logit(theta.cos(), Margin(s=1)).tolist()
    assert after - before == pytest.approx(-0.1173, abs=5e-5)


def test_easy_spares_all_margins_beyond_90_degrees() -> None:
    cosine = torch.tensor([-0.3, 0.3])
    value = target_logit(cosine, Margin(m0=0.8, m2=0.2, m3=0.3, s=2, extension="easy"))
    assert value[0].item() == pytest.approx(-0.6)
    assert value[1].item() == pytest.approx(2 * (0.8 * math.cos(math.acos(0.3) + 0.2) - 0.3))


def test_raw_rises_again() -> None:
    theta = torch.tensor([math.pi - 0.4, math.pi - 0.1], dtype=torch.float64)
    value = target_logit(theta.cos(), Margin(extension="raw"))
    assert value[1] > value[0]


def test_true_gradient_is_not_the_straight_through_one() -> None:
    """At cosine 0.95 the true slope is 149.5 for s = 64, m = 0.5; straight-through says 64."""
    slopes = {}
    for gradient in ("true", "straight_through"):
        cosine = torch.tensor(0.95, dtype=torch.float64, requires_grad=True)
        target_logit(cosine, Margin(gradient=gradient)).backward()
        slopes[gradient] = cosine.grad.item()
    theta = math.acos(0.95)
    assert slopes["true"] == pytest.approx(64 * math.sin(theta + 0.5) / math.sin(theta))
    assert slopes["true"] == pytest.approx(149.5, abs=0.1)
    assert slopes["straight_through"] == pytest.approx(64)


def test_wrong_class_relu_spares_the_target() -> None:
    cosine = torch.tensor([[-0.5, -0.5, 0.5]])
    logits = margin_logits(cosine, torch.tensor([0]), Margin(m2=0.0, s=2, wc_relu=True))
    assert logits.tolist() == [[-1.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"s": 0}, r"Margin\ns\n"),
        ({"m1": -1}, r"Margin\nm1\n"),
        ({"m2": 2.0}, r"Margin\nm2\n"),
        ({"m2": float("nan")}, r"Margin\nm2\n"),
        ({"m3": float("inf")}, r"Margin\nm3\n"),
        ({"extension": "soft"}, "soft"),
        ({"gradient": "none"}, "none"),
    ],
)
def test_refuses(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Margin(**arguments)


def test_margin_logits_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(B, C\)"):
        margin_logits(torch.zeros(3), torch.zeros(3, dtype=torch.int64), Margin())
