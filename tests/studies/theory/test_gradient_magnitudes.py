from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from arcface_plus.studies.theory.gradient_magnitudes import MEASURES, gradient_magnitude

MEASURED = {
    "D1": lambda x, w: -(x - w).square().sum(),
    "D2": lambda x, w: x @ w,
    "D3": lambda x, w: (x @ w) ** 2,
    "truncated D3": lambda x, w: (x @ w) ** 2 * float(x @ w > 0),
}


def test_vector() -> None:
    angles = np.radians([0, 30, 60, 90, 120, 180])
    expected = {
        "D1": [0, 1.0353, 2, 2.8284, 3.4641, 4],
        "D2": [1, 1, 1, 1, 1, 1],
        "D3": [2, 1.7321, 1, 0, 1, 2],
        "truncated D3": [2, 1.7321, 1, 0, 0, 0],
    }
    for measure, values in expected.items():
        np.testing.assert_allclose(gradient_magnitude(angles, measure), values, atol=5.1e-5)


@pytest.mark.parametrize("through_normalisation", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
def test_against_autograd(measure: str, through_normalisation: bool) -> None:
    """In five dimensions, x free or normalised inside."""
    generator = torch.Generator().manual_seed(0)
    w, v = torch.linalg.qr(torch.randn(5, 2, generator=generator, dtype=torch.float64))[0].t()
    for degrees in (5, 40, 85, 95, 130, 178):
        theta = math.radians(degrees)
        x = (math.cos(theta) * w + math.sin(theta) * v).requires_grad_()
        seen = x / x.norm() if through_normalisation else x
        (gradient,) = torch.autograd.grad(MEASURED[measure](seen, w), x)
        got = gradient_magnitude(theta, measure, through_normalisation=through_normalisation)
        assert float(got) == pytest.approx(float(gradient.norm()), abs=1e-12)


def test_the_pull_of_d3_through_the_normalisation_is_largest_at_45_degrees() -> None:
    theta = np.linspace(0, math.pi / 2, 181)
    pull = gradient_magnitude(theta, "D3", through_normalisation=True)
    assert math.degrees(theta[pull.argmax()]) == 45 and pull[0] == 0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="measure is 'D4'"):
        gradient_magnitude(1.0, "D4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 to π"):
        gradient_magnitude(-1.0, "D1")
