from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import trapezoid

from arcface_plus.losses.theory.uniform_law import log_cap_fraction
from arcface_plus.studies.theory.uniform_caps import (
    cap_angle,
    cap_angle_density,
    cap_angle_moments,
    log10_cap_mass,
    sample_cap,
    sample_cap_angles,
)


@pytest.mark.parametrize(
    ("dim", "cap", "mean", "std"),
    [
        (512, 20, 19.959, 0.041),
        (512, 40, 39.906, 0.093),
        (512, 60, 59.808, 0.190),
        (512, 80, 79.427, 0.548),
        (8, 20, 17.45, 2.23),
        (8, 40, 34.59, 4.65),
        (8, 60, 51.00, 7.43),
        (8, 80, 65.97, 10.79),
    ],
)
def test_moments_vector(dim: int, cap: float, mean: float, std: float) -> None:
    got = [math.degrees(x) for x in cap_angle_moments(math.radians(cap), dim)]
    tolerance = 5.1e-4 if dim == 512 else 5.1e-3
    assert got == pytest.approx([mean, std], abs=tolerance)


def test_moments_closed_forms() -> None:
    """On a circle angles are uniform; the whole sphere's mean is 90°; caps may be tiny."""
    mean, std = cap_angle_moments(1.2, 2)
    assert (mean, std) == pytest.approx((0.6, 1.2 / math.sqrt(12)), rel=1e-12)
    for dim in (3, 512, 100_000):
        assert cap_angle_moments(math.pi, dim)[0] == pytest.approx(math.pi / 2, abs=1e-10)
    mean, std = cap_angle_moments(1e-6, 3)
    assert (mean, std) == pytest.approx((2e-6 / 3, 1e-6 / math.sqrt(18)), rel=1e-9)


def test_cap_angle_inverts_the_law() -> None:
    """Readings of the paper's 78.64° at C = 85 742, d = 512, neither of which gives it."""
    assert math.degrees(cap_angle(1 / 85_742, 512)) == pytest.approx(79.304, abs=5e-4)
    assert math.degrees(cap_angle(1 / (2 * 85_742), 512)) == pytest.approx(78.918, abs=5e-4)
    assert cap_angle(0.5, 8) == pytest.approx(math.pi / 2)


@pytest.mark.parametrize(("dim", "cap"), [(3, 0.7), (8, 2.5), (512, 1.2)])
def test_density_integrates_to_the_share(dim: int, cap: float) -> None:
    theta = np.linspace(0, cap, 20_001)
    density = cap_angle_density(theta, cap, dim)
    assert trapezoid(density, theta) == pytest.approx(1, abs=1e-4)
    assert cap_angle_density(min(cap + 0.1, math.pi), cap, dim) == 0


def test_mass_is_the_law_in_decades() -> None:
    assert float(log10_cap_mass(math.radians(60), 512)) == pytest.approx(-33.38, abs=5e-3)


@pytest.mark.parametrize("dim", [2, 3, 8, 512])
@pytest.mark.parametrize("degrees", [0.01, 5, 45, 70, 85, 89.9, 90])
def test_sampled_angles_follow_the_law(dim: int, degrees: float) -> None:
    """Kolmogorov and Smirnov, on F(θ)/F(θ0), from both proposals."""
    cap = math.radians(degrees)
    angles = sample_cap_angles(cap, dim, 4000, np.random.default_rng(dim))
    assert angles.shape == (4000,) and angles.max() <= cap * (1 + 1e-12)
    share = np.exp(log_cap_fraction(angles, dim) - log_cap_fraction(cap, dim))
    assert stats.kstest(share, "uniform").pvalue > 1e-4


def test_sampler_draws_another_law_for_another_cap() -> None:
    """The test above can fail."""
    angles = sample_cap_angles(1.0, 8, 4000, np.random.default_rng(0))
    share = np.exp(log_cap_fraction(angles, 7) - log_cap_fraction(1.0, 7))
    assert stats.kstest(share, "uniform").pvalue < 1e-6


@pytest.mark.parametrize("cap", [0.3, 1.4])
def test_sampled_rows_are_unit_and_even_about_the_axis(cap: float) -> None:
    generator = np.random.default_rng(4)
    axis = np.array([3.0, -1.0, 2.0, 0.5, 1.0])
    rows = sample_cap(axis, cap, 20_000, generator)
    mu = axis / np.linalg.norm(axis)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-12)
    assert np.arccos(np.clip(rows @ mu, -1, 1)).max() <= cap + 1e-7
    across = rows - (rows @ mu)[:, None] * mu
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    even = (np.eye(5) - np.outer(mu, mu)) / 4
    np.testing.assert_allclose(across.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(across.T @ across / len(rows), even, atol=0.02)
    again = sample_cap(axis, cap, 20_000, np.random.default_rng(4))
    assert np.array_equal(rows, again)


def test_bad_caps_are_refused() -> None:
    generator = np.random.default_rng(0)
    for cap in (0.0, -1.0, 4.0, math.nan):
        with pytest.raises(ValueError, match="cap is"):
            cap_angle_moments(cap, 8)
    with pytest.raises(ValueError, match=r"up to π/2"):
        sample_cap_angles(2.0, 8, 5, generator)
    for axis in (np.zeros(4), np.full(4, math.nan), np.ones((2, 2))):
        with pytest.raises(ValueError, match="must be a direction"):
            sample_cap(axis, 1.0, 5, generator)
    assert sample_cap(np.ones(4), 1.0, 0, generator).shape == (0, 4)
