from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate

from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.theory.uniform_law import log_cap_fraction, log_negative_weight
from arcface_plus.losses.theory.uniform_prediction import (
    collapse_risk,
    collapse_warning,
    nearest_class_angle,
    nearest_class_moments,
    others_share,
    own_gradient,
    pole_loss,
    right_angle_loss,
    target_curve,
    termination_angle,
)

C, D = 85_742, 512


def raw(**parameters: float) -> Margin:
    return Margin(**{"m2": 0.0, **parameters}, extension="raw")


@pytest.mark.parametrize(
    ("classes", "dim", "degrees"),
    [
        (C, D, 79.002),
        (100, D, 83.657),
        (1000, D, 81.796),
        (10_000, D, 80.257),
        (10_572, D, 80.223),
        (100_000, D, 78.917),
        (1_000_000, D, 77.716),
        (C, 3, 0.347),
        (C, 64, 59.27),
        (C, 128, 68.12),
        (C, 8, 14.03),
        (C, 16, 31.54),
    ],
)
def test_nearest_class_vector(classes: int, dim: int, degrees: float) -> None:
    places = len(str(degrees).split(".")[1])
    got = math.degrees(nearest_class_angle(classes, dim))
    assert got == pytest.approx(degrees, abs=0.51 * 10**-places)


def test_nearest_class_spread() -> None:
    assert math.degrees(nearest_class_moments(C, D).std) == pytest.approx(0.687, abs=5e-4)


def test_nearest_class_closed_forms() -> None:
    """Two classes meet at any angle, 90° in the mean; on a circle the gap is π/C."""
    for dim in (2, 3, 512):
        assert nearest_class_angle(2, dim) == pytest.approx(math.pi / 2, abs=1e-12)
    assert nearest_class_moments(2, 2).std == pytest.approx(math.pi / math.sqrt(12), rel=1e-12)
    for classes in (3, 1000, 10**9):
        assert nearest_class_angle(classes, 2) == pytest.approx(math.pi / classes, rel=1e-9)


@pytest.mark.parametrize(("classes", "dim"), [(5, 4), (300, 10), (7, 200)])
def test_nearest_class_against_adaptive_quadrature(classes: int, dim: int) -> None:
    def survival(theta: float) -> float:
        return (-math.expm1(float(log_cap_fraction(theta, dim)))) ** (classes - 1)

    mean, _ = integrate.quad(survival, 0, math.pi, limit=500, epsabs=1e-11)
    second, _ = integrate.quad(lambda t: 2 * t * survival(t), 0, math.pi, limit=500, epsabs=1e-11)
    got = nearest_class_moments(classes, dim)
    assert got.mean == pytest.approx(mean, abs=1e-9)
    assert got.std == pytest.approx(math.sqrt(second - mean * mean), abs=1e-8)


def test_nearest_class_refuses() -> None:
    with pytest.raises(ValueError, match="classes is 1"):
        nearest_class_angle(1, 512)
    with pytest.raises(ValueError, match="dim is 1"):
        nearest_class_angle(5, 1)


@pytest.mark.parametrize("extension", ["raw", "hard", "easy", "clamp", "piecewise"])
@pytest.mark.parametrize("parameters", [{"m2": 0.5}, {"m1": 1.35}, {"m0": 0.4}, {"m3": 0.35}])
def test_slope_is_that_of_the_value(extension: str, parameters: dict) -> None:
    margin = Margin(**{"m2": 0.0, **parameters}, extension=extension)
    theta, h = np.array([0.3, 1.0, 1.5, 1.9, 2.2, 2.9]), 1e-6
    above, _ = target_curve(margin, theta + h)
    below, _ = target_curve(margin, theta - h)
    _, slope = target_curve(margin, theta)
    np.testing.assert_allclose(slope, (above - below) / (2 * h), rtol=1e-6, atol=1e-5)


def test_slope_shapes_and_ends() -> None:
    value, slope = target_curve(Margin(), 0.0)
    assert value.shape == slope.shape == ()
    assert float(slope) == pytest.approx(-64 * math.sin(0.5), rel=1e-5)
    assert target_curve(Margin(), np.zeros((2, 3)))[1].shape == (2, 3)
    _, slope = target_curve(Margin(gradient="straight_through"), 1.0)
    assert float(slope) == pytest.approx(-64 * math.sin(1.0))
    with pytest.raises(ValueError, match="0 to π"):
        target_curve(Margin(), 4.0)


def test_own_gradient_is_the_closed_form() -> None:
    """s·m0·m1·sin(m1θ + m2)·q, q = N/(N + e^f)."""
    margin = Margin(m0=0.9, m1=1.2, m2=0.3, m3=0.1, s=30, extension="raw")
    theta = np.linspace(0.1, 1.5, 8)
    f = 30 * (0.9 * np.cos(1.2 * theta + 0.3) - 0.1)
    share = math.e**9 / (math.e**9 + np.exp(f))
    expected = 30 * 0.9 * 1.2 * np.sin(1.2 * theta + 0.3) * share
    np.testing.assert_allclose(own_gradient(theta, margin, 9.0), expected, rtol=1e-12)
    assert others_share(np.array([-1e4, 0.0, 1e4]), 0.0).tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("margin", "at_two", "at_one"),
    [
        (raw(m0=0.35), 39.9, 37.0),
        (raw(m1=1.85), 39.1, 38.8),
        (raw(m2=0.6), 38.6, 37.9),
        (raw(m3=0.5), 38.2, 37.2),
        (raw(m2=0.5), 44.3, 43.7),
        (raw(m3=0.35), 50.3, 49.4),
        (raw(m1=1.35), 53.8, 53.4),
        (raw(), 73.0, 72.3),
    ],
)
def test_termination_vector(margin: Margin, at_two: float, at_one: float) -> None:
    for gradient, degrees in ((2.0, at_two), (1.0, at_one)):
        angle = termination_angle(margin, C, D, gradient=gradient, form="first_order")
        assert math.degrees(angle) == pytest.approx(degrees, abs=0.06)
        log_weight = log_negative_weight(C, D, margin.s)
        assert float(own_gradient(angle, margin, log_weight)) == pytest.approx(gradient, rel=1e-6)


def test_termination_of_the_papers_best_margins_is_shared() -> None:
    """And is about half the predicted angle: what the threshold of 2 was chosen by."""
    best = (raw(m0=0.35), raw(m1=1.85), raw(m2=0.6), raw(m3=0.5))
    angles = [math.degrees(termination_angle(margin, C, D)) for margin in best]
    half = math.degrees(nearest_class_angle(C, D)) / 2
    assert max(angles) - min(angles) < 2
    assert all(abs(angle - half) < 1.4 for angle in angles)


def test_termination_at_its_ends() -> None:
    with pytest.raises(ValueError, match=r"at most 0\.99.* up to 90°, never 2"):
        termination_angle(Margin(m2=0.0, s=1.0), 100, 512)
    with pytest.raises(ValueError, match="gradient is 0"):
        termination_angle(Margin(), 100, 512, gradient=0.0)
    assert termination_angle(Margin(m2=1.4), C, D) == 0.0  # it pulls even at 0
    # A dead spot higher up (m1θ = π at 60°) does not end it.
    steep = Margin(m1=3.0, m2=0.0, extension="piecewise")
    assert math.degrees(termination_angle(steep, C, D)) < 30


@pytest.mark.parametrize(
    ("margin", "loss", "tolerance"),
    [
        (raw(), 11.4, 0.05),
        (raw(m0=0.8), 0.212, 5e-4),
        (raw(m0=0.4), 1.8e-12, 5e-14),
        (raw(m1=1.2), 0.352, 5e-4),
        (raw(m1=1.35), 5.7e-11, 5e-13),
        (raw(m2=0.5), 3.55, 5e-3),
        (raw(m2=0.6), 0.788, 5e-4 + 1e-6),
        (raw(m3=0.35), 33.8, 0.05),
        (replace(raw(m0=0.4), wc_relu=True), 37.0, 0.05),
        (replace(raw(m1=1.35), wc_relu=True), 40.4, 0.05),
        (replace(raw(m0=0.8), wc_relu=True), 62.6, 0.05),
    ],
)
def test_pole_vector(margin: Margin, loss: float, tolerance: float) -> None:
    assert pole_loss(margin, C) == pytest.approx(loss, abs=tolerance)


def test_collapse_begins_where_the_loss_is_log_two() -> None:
    """m0 < .8225 and m1 > 1.1926, with the raw cosine and 85 742 classes at s = 64."""
    assert collapse_warning(raw(m0=0.8226), C) is None
    assert collapse_warning(raw(m0=0.8224), C) is not None
    assert collapse_warning(raw(m1=1.1925), C) is None
    assert collapse_warning(raw(m1=1.1927), C) is not None


@pytest.mark.parametrize(
    ("margin", "risk"),
    [
        (Margin(s=32), "early"),  # of the study that collapsed: 13.2 at the poles, 20.8 before
        (Margin(s=32, extension="easy"), "no"),
        (Margin(m2=0.0, s=32), "no"),
        (Margin(m2=0.0, m3=0.35, s=32), "no"),
        (Margin(s=32, wc_relu=True), "no"),
        (Margin(m0=0.3, m2=0.0, s=32), "likely"),
    ],
)
def test_collapse_risk_compares_the_poles_with_the_start(margin: Margin, risk: str) -> None:
    assert collapse_risk(margin, 240) == risk


def test_losses_at_the_poles_and_at_right_angles_by_hand() -> None:
    margin = Margin(m2=0.5, s=32)
    assert pole_loss(margin, 240) == pytest.approx(
        math.log(239) + 32 * 0.5 * math.sin(0.5), abs=1e-3
    )
    start = math.log(239) + 32 * math.sin(0.5)
    assert right_angle_loss(margin, 240) == pytest.approx(start, abs=1e-3)
    # With a hundredth of the margin the two are nearly equal: little leads to the poles.
    early = Margin(m2=0.5, s=32, warmup_steps=100).at_step(0)
    assert right_angle_loss(early, 240) - pole_loss(early, 240) < 0.2


def test_collapse_warning_names_the_fix_and_the_fix_helps() -> None:
    for margin in (raw(m0=0.4), raw(m1=1.35), raw(m2=0.9)):
        words = collapse_warning(margin, C)
        assert words is not None and "wc_relu: true" in words
        assert collapse_warning(replace(margin, wc_relu=True), C) is None
    assert "extension: piecewise" in (collapse_warning(raw(m1=1.35), C) or "")
    assert collapse_warning(Margin(m1=1.35, m2=0.0, extension="piecewise"), C) is None
    assert "extension: hard" in (collapse_warning(raw(m2=0.9), C) or "")
    assert collapse_warning(Margin(m2=0.9, extension="hard"), C) is None
    assert "extension" not in (collapse_warning(raw(m0=0.4), C) or "")
    assert "larger m0" in (collapse_warning(raw(m0=0.4), C) or "")
