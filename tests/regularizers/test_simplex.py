"""The analytic optimum for as many dimensions as points, or one less."""

from __future__ import annotations

import math

import pytest
import torch

from arcface_plus.regularizers.mma import mma_loss, nearest_angles
from arcface_plus.regularizers.simplex import simplex


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize(("points", "dim"), [(2, 1), (2, 5), (3, 2), (6, 5), (6, 9), (200, 199)])
def test_cosines_are_those_of_equation_4(points: int, dim: int, rotated: bool) -> None:
    generator = torch.Generator().manual_seed(0) if rotated else None
    rows = simplex(points, dim, generator=generator)
    expected = torch.full((points, points), -1 / (points - 1), dtype=torch.float64)
    expected.fill_diagonal_(1)
    torch.testing.assert_close(rows @ rows.t(), expected, rtol=0, atol=2e-15 * math.sqrt(points))
    assert rows.sum(0).abs().max() < 1e-13
    assert rows.shape == (points, dim) and rows.dtype == torch.float64


@pytest.mark.parametrize(
    ("points", "degrees", "loss"),
    [(4, 109.4712, -1.9106332), (5, 104.4775, -1.8234766), (6, 101.5370, -1.7721542)],
)
def test_known_angles_and_minimum_of_mma(points: int, degrees: float, loss: float) -> None:
    rows = simplex(points, points - 1)
    assert mma_loss(rows).item() == pytest.approx(loss, abs=1e-7)
    angle = nearest_angles(rows).angle
    assert torch.rad2deg(angle).tolist() == pytest.approx([degrees] * points, abs=1e-4)


def test_rotations_are_the_generators_and_keep_orientation() -> None:
    first, again, other = (
        simplex(4, 3, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.allclose(first, other)
    fixed = simplex(4, 3)
    turn = torch.linalg.lstsq(fixed, first).solution
    assert torch.linalg.det(turn).item() == pytest.approx(1)


def test_dtype() -> None:
    assert simplex(5, 4, dtype=torch.float32).dtype == torch.float32


def test_too_few_points_or_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="points is 1"):
        simplex(1, 3)
    with pytest.raises(ValueError, match="5 points at equal angles need at least 4 dimensions"):
        simplex(5, 3)
