from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, special

from arcface_plus.losses.theory.uniform_law import (
    log_angle_density,
    log_cap_fraction,
    log_exponential_moment,
    log_half_space_moment,
    log_mean_weight,
    log_negative_weight,
    negative_weight_spread,
)

DEGREES = (1e-3, 1.0, 14.0, 44.9, 45.1, 80.0, 89.9999999, 90.0, 90.0000001, 120.0, 179.9)


@pytest.mark.parametrize("dim", [2, 3, 8, 64, 512, 4096])
def test_cap_fraction_against_forty_digits(dim: int) -> None:
    """Where F is below the smallest float64 too: at d = 4096, 1e-3° is e^-44870."""
    mpmath = pytest.importorskip("mpmath")
    for degrees in DEGREES:
        theta = math.radians(degrees)
        with mpmath.workdps(40):
            folded = mpmath.mpf(theta) if degrees <= 90 else mpmath.pi - mpmath.mpf(theta)
            share = (
                mpmath.betainc(
                    mpmath.mpf(dim - 1) / 2, 0.5, 0, mpmath.sin(folded) ** 2, regularized=True
                )
                / 2
            )
            expected = mpmath.log(share if degrees <= 90 else 1 - share)
            assert float(log_cap_fraction(theta, dim)) == pytest.approx(
                float(expected), rel=1e-13, abs=1e-15
            )


def test_cap_fraction_vector() -> None:
    """log10 F at d = 512."""
    expected = {90: -0.301, 85: -1.615, 80: -4.414, 70: -15.10, 60: -33.38, 45: -78.52, 30: -155.5}
    for degrees, value in expected.items():
        got = float(log_cap_fraction(math.radians(degrees), 512)) / math.log(10)
        digits = len(str(value).split(".")[1])
        assert got == pytest.approx(value, abs=0.51 * 10**-digits)
    # Where a float64 F would be 0, the logarithm goes on.
    assert special.betainc(255.5, 0.5, math.sin(math.radians(10)) ** 2) == 0
    assert float(log_cap_fraction(math.radians(10), 512)) == pytest.approx(-898.64, abs=0.01)


def test_cap_fraction_closed_forms_and_ends() -> None:
    theta = np.linspace(0, math.pi, 13)
    with np.errstate(divide="ignore"):
        circle, sphere = np.log(theta / math.pi), np.log((1 - np.cos(theta)) / 2)
    np.testing.assert_allclose(log_cap_fraction(theta, 2), circle, atol=1e-14)
    np.testing.assert_allclose(log_cap_fraction(theta, 3), sphere, atol=1e-13)
    assert log_cap_fraction(theta.reshape(13, 1), 5).shape == (13, 1)
    assert float(log_cap_fraction(0.0, 512)) == -math.inf
    assert float(log_cap_fraction(math.pi, 512)) == 0.0


@pytest.mark.parametrize("dim", [2, 3, 17, 512])
def test_density_is_the_derivative(dim: int) -> None:
    theta, h = np.array([0.9, 1.3, 1.5708, 1.9]), 1e-5
    slope = (
        np.exp(log_cap_fraction(theta + h, dim)) - np.exp(log_cap_fraction(theta - h, dim))
    ) / (2 * h)
    np.testing.assert_allclose(np.exp(log_angle_density(theta, dim)), slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: log_cap_fraction(4.0, 8), "0 to π radians"),
        (lambda: log_cap_fraction(math.nan, 8), "0 to π radians"),
        (lambda: log_cap_fraction(-0.1, 8), "0 to π radians"),
        (lambda: log_cap_fraction(1.0, 1), "dim is 1"),
        (lambda: log_angle_density(1.0, 2.5), "dim is 2.5"),
        (lambda: log_negative_weight(1, 8, 64.0), "classes is 1"),
        (lambda: log_negative_weight(9, 8, 0.0), "scale is 0"),
        (lambda: log_negative_weight(9, 8, math.inf), "scale is inf"),
        (lambda: log_mean_weight(8, 64.0, form="second"), "form is 'second'"),
    ],
)
def test_what_is_refused(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_negative_weight_vectors() -> None:
    """C = 85 742, d = 512, s = 64; 4.5407e6 exact and 4.681e6 to first order."""

    def weight(**how) -> float:
        return math.exp(log_negative_weight(85_742, 512, 64.0, **how))

    assert log_negative_weight(85_742, 512, 64.0) == pytest.approx(15.359086, abs=5e-7)
    assert weight() == pytest.approx(4.68130e6, rel=1.1e-6)
    assert weight() * 85_742 / 85_741 == pytest.approx(4.68135e6, rel=1.1e-6)
    assert weight(form="exact") == pytest.approx(4.5407e6, rel=1.1e-5)
    assert weight(form="exact") * 85_742 / 85_741 == pytest.approx(4.54072e6, rel=1.1e-6)
    assert math.exp(log_exponential_moment(64.0, 512)) == pytest.approx(52.9579, rel=1e-6)
    assert weight(wc_relu=True) == pytest.approx(4.713e6, rel=2e-4)
    assert math.exp(64**2 / 512) / 85_742 == pytest.approx(0.034767, rel=2e-5)
    assert negative_weight_spread(85_742, 512, 64.0) == pytest.approx(0.153, abs=5e-4)


@pytest.mark.parametrize(
    ("dim", "scale"), [(2, 1.0), (3, 0.01), (8, 64.0), (64, 10.0), (512, 64.0)]
)
def test_exponential_moment_is_the_bessel_form_and_the_integral(dim: int, scale: float) -> None:
    order = dim / 2 - 1
    bessel = special.gammaln(dim / 2) + order * math.log(2 / scale) + scale
    bessel += math.log(special.ive(order, scale))
    assert log_exponential_moment(scale, dim) == pytest.approx(bessel, abs=1e-11)

    def weighted(theta: float) -> float:
        return math.exp(scale * math.cos(theta) - bessel + float(log_angle_density(theta, dim)))

    whole, _ = integrate.quad(weighted, 0, math.pi, limit=200)
    half, _ = integrate.quad(weighted, 0, math.pi / 2, limit=200)
    assert whole == pytest.approx(1, abs=1e-8)
    assert math.exp(log_half_space_moment(scale, dim) - bessel) == pytest.approx(half, rel=1e-8)


def test_exponential_moment_where_the_bessel_function_underflows() -> None:
    assert special.ive(8191.0, 64.0) == 0
    log_series = 64**2 / (2 * 16384) - 64**4 / (4 * 16384**2 * 16386)
    assert log_exponential_moment(64.0, 16384) == pytest.approx(log_series, abs=1e-8)
    assert log_exponential_moment(1e4, 8) == pytest.approx(1e4 - 3.5 * math.log(1e4), abs=10)


@pytest.mark.parametrize("form", ["exact", "first_order"])
def test_weight_with_wc_relu_lies_between(form: str) -> None:
    """max(0, z) weighs more than z and less than 1 more."""
    for dim, scale in ((8, 3.0), (512, 64.0), (4096, 1.0)):
        plain = math.exp(log_mean_weight(dim, scale, form=form))
        relu = math.exp(log_mean_weight(dim, scale, form=form, wc_relu=True))
        assert plain < relu < plain + 0.5
