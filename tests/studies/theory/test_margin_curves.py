from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from arcface_plus.losses.margins.family import Margin, margin_logits
from arcface_plus.losses.theory.uniform_law import log_mean_weight
from arcface_plus.studies.theory.margin_curves import (
    NO_MARGIN,
    Setting,
    loss_at,
    other_gradient_at,
    own_gradient_at,
)

OWN = np.radians([20.0, 40.0, 60.0, 80.0])
BASE = Setting()


@pytest.mark.parametrize(
    ("parameter", "value", "loss", "by_own", "by_other"),
    [
        ("m0", 1.0, (0, 0, 0, 4.25983), (0, 0, 0, 62.13745), (0, 0, 0, -0.877859)),
        (
            "m0",
            0.35,
            (0.00337, 0.15293, 4.17459, 11.46938),
            (0.0258, 2.04189, 19.10058, 22.05946),
            (-0.003041, -0.127799, -0.876756, -0.890250),
        ),
        (
            "m1",
            1.35,
            (0, 0, 5.35203, 35.13617),
            (0, 0, 84.9319, 82.17128),
            (0, 0, -0.8861, -0.890259),
        ),
        (
            "m1",
            1.85,
            (0, 0.09723, 38.29464, 69.63416),
            (0, 10.54476, 110.53592, 62.74244),
            (0, -0.083552, -0.890259, -0.890259),
        ),
        (
            "m2",
            0.6,
            (0, 0.14254, 20.24401, 41.77485),
            (0, 8.18807, 63.8133, 58.29415),
            (0, -0.119733, -0.890259, -0.890259),
        ),
        (
            "m3",
            0.5,
            (0, 0.17283, 15.35909, 36.2456),
            (0.00006, 6.52962, 55.42561, 63.0277),
            (-0.000003, -0.143003, -0.890259, -0.890259),
        ),
    ],
)
def test_vectors(parameter: str, value: float, loss, by_own, by_other) -> None:
    """To the printed digits: 5 decimals of loss and own gradient, 6 of the other gradient."""
    setting = BASE.changed(parameter, value)
    np.testing.assert_allclose(loss_at(OWN, setting), loss, atol=5.1e-6)
    np.testing.assert_allclose(own_gradient_at(OWN, setting), by_own, atol=5.1e-6)
    got = other_gradient_at(OWN, math.radians(80), setting)
    np.testing.assert_allclose(got, by_other, atol=5.1e-7)


def test_other_gradient_vector_beyond_the_crowd() -> None:
    """θ_y = 40°, θ_j = 50°, m2 = .5: the one class outweighs all others."""
    setting = BASE.changed("m2", 0.5)
    got = float(other_gradient_at(math.radians(40), math.radians(50), setting))
    assert got == pytest.approx(-49.0268435, abs=5e-8)


MARGINS = [
    NO_MARGIN,
    Margin(m2=0.5),
    Margin(m0=0.5, m2=0.0),
    Margin(m1=1.35, m2=0.0, extension="piecewise"),
    Margin(m2=0.0, m3=0.35),
    Margin(m0=0.9, m1=1.1, m2=0.2, m3=0.1, extension="raw"),
]


@pytest.mark.parametrize("wc_relu", [False, True])
@pytest.mark.parametrize("margin", MARGINS, ids=str)
def test_gradients_are_autograd_of_the_real_softmax(margin: Margin, wc_relu: bool) -> None:
    """Three classes: the third sits at the cosine whose weight is the expectation."""
    margin = replace(margin, s=20.0, wc_relu=wc_relu)
    setting = Setting(classes=3, dim=64, margin=margin)
    rest = log_mean_weight(64, 20.0, wc_relu=wc_relu) / 20.0
    for own, other in ((0.4, 1.2), (1.1, 0.9), (1.5, 1.7), (2.6, 2.0)):
        theta = torch.tensor([own, other], dtype=torch.float64, requires_grad=True)
        third = torch.tensor([rest], dtype=torch.float64)
        cosine = torch.cat([torch.cos(theta), third])[None]
        logits = margin_logits(cosine, torch.tensor([0]), margin)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0]))
        (_, expected) = torch.autograd.grad(loss, theta)[0]
        got = float(other_gradient_at(own, other, setting))
        assert got == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("wc_relu", [False, True])
@pytest.mark.parametrize("margin", MARGINS, ids=str)
def test_own_curves_are_autograd_of_the_real_softmax(margin: Margin, wc_relu: bool) -> None:
    """All 40 others at the cosine whose weight is the expectation."""
    margin = replace(margin, s=20.0, wc_relu=wc_relu)
    setting = Setting(classes=41, dim=64, margin=margin)
    rest = log_mean_weight(64, 20.0, wc_relu=wc_relu) / 20.0
    for own in (0.4, 1.1, 1.5, 2.6):
        theta = torch.tensor([own], dtype=torch.float64, requires_grad=True)
        others = torch.full((40,), rest, dtype=torch.float64)
        logits = margin_logits(
            torch.cat([torch.cos(theta), others])[None], torch.tensor([0]), margin
        )
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0]))
        (expected,) = torch.autograd.grad(loss, theta)
        assert float(loss_at(own, setting)) == pytest.approx(loss.item(), rel=1e-9, abs=1e-12)
        got = float(own_gradient_at(own, setting))
        assert got == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)


def test_gradient_is_the_slope_of_the_loss() -> None:
    setting, h = BASE.changed("m2", 0.5), 1e-6
    slope = (loss_at(OWN + h, setting) - loss_at(OWN - h, setting)) / (2 * h)
    np.testing.assert_allclose(own_gradient_at(OWN, setting), slope, rtol=1e-6, atol=1e-6)


def test_wc_relu_silences_classes_beyond_a_right_angle() -> None:
    relu = replace(BASE, margin=replace(NO_MARGIN, wc_relu=True))
    angles = np.radians([80.0, 90.0, 100.0, 180.0])
    got = other_gradient_at(math.radians(80), angles, relu)
    assert got[0] < 0 and (got[1:] == 0).all()
    assert (other_gradient_at(math.radians(80), angles[1:3], BASE) < 0).all()


def test_only_two_classes_leave_no_crowd() -> None:
    setting = Setting(classes=2, dim=8, margin=Margin(m2=0.0, s=4.0, extension="raw"))
    expected = -4 * math.sin(1.0) * math.exp(4 * math.cos(1.0))
    expected /= math.exp(4 * math.cos(0.5)) + math.exp(4 * math.cos(1.0))
    assert float(other_gradient_at(0.5, 1.0, setting)) == pytest.approx(expected, rel=1e-12)


def test_settings_change_one_thing_and_refuse_nonsense() -> None:
    for name, value in (("C", 10), ("d", 8), ("s", 2.0), ("m0", 0.5), ("m1", 2.0), ("m3", 0.1)):
        changed = BASE.changed(name, value)
        assert changed != BASE
        back = {"C": 85_742, "d": 512, "s": 64.0, "m0": 1.0, "m1": 1.0, "m3": 0.0}[name]
        assert changed.changed(name, back) == BASE
    with pytest.raises(ValueError, match="'m4' is not one of"):
        BASE.changed("m4", 1.0)
    with pytest.raises(ValueError, match="classes is 1"):
        Setting(classes=1)
    with pytest.raises(ValueError, match="dim is 1"):
        Setting(dim=1)
