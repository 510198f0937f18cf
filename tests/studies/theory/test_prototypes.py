from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from arcface_plus.losses.theory.uniform_law import log_cap_fraction
from arcface_plus.losses.theory.uniform_prediction import (
    nearest_class_angle,
    nearest_class_moments,
)
from arcface_plus.studies.theory import prototypes
from arcface_plus.studies.theory.prototypes import (
    cap_angle,
    extreme_value_angle,
    nearest_angle_quantile,
    sample_nearest_angles,
    small_cap_limit,
    unit_prototypes,
)

C, D = 85_742, 512


def naive(rows: torch.Tensor) -> np.ndarray:
    cosine = rows.double() @ rows.double().t()
    cosine.fill_diagonal_(-2)
    chord = torch.linalg.vector_norm(rows.double() - rows.double()[cosine.argmax(1)], dim=1)
    return 2 * np.arcsin(chord.numpy() / 2)


def test_closed_forms_vector() -> None:
    """Readings of the paper's 78.64° at C = 85 742, d = 512, none of which gives it."""
    median = math.degrees(nearest_angle_quantile(C, D, 0.5))
    assert median == pytest.approx(79.098, abs=5e-4)
    assert math.degrees(cap_angle(-math.log(C), D)) == pytest.approx(79.304, abs=5e-4)
    assert math.degrees(cap_angle(-math.log(2 * C), D)) == pytest.approx(78.918, abs=5e-4)
    # n = 2(C − 1) other points.
    assert math.degrees(nearest_class_angle(2 * (C - 1) + 1, D)) == pytest.approx(78.625, abs=5e-4)
    assert small_cap_limit(C, D) == pytest.approx(0.98466, abs=5e-6)


def test_approximations_where_they_hold() -> None:
    for classes in (100, 10_000, C):
        gap = extreme_value_angle(classes, D) - nearest_class_angle(classes, D)
        assert abs(math.degrees(gap)) < 0.1
    for classes, dim in ((10**6, 2), (10**6, 3), (10**9, 8)):
        limit = small_cap_limit(classes, dim)
        assert limit == pytest.approx(nearest_class_angle(classes, dim), rel=2e-3)
    with pytest.raises(ValueError, match="at least 3 classes"):
        extreme_value_angle(2, 8)


def test_quantiles_and_caps_invert_the_law() -> None:
    for share in (0.01, 0.5, 0.99):
        theta = nearest_angle_quantile(1000, 64, share)
        below = 1 - (1 - math.exp(float(log_cap_fraction(theta, 64)))) ** 999
        assert below == pytest.approx(share, abs=1e-9)
    assert cap_angle(-5000.0, 512) > 0
    assert float(log_cap_fraction(cap_angle(-5000.0, 512), 512)) == pytest.approx(-5000.0)
    for share in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            nearest_angle_quantile(10, 8, share)
    with pytest.raises(ValueError, match="at most 1"):
        cap_angle(0.1, 8)


@pytest.mark.parametrize(("classes", "dim"), [(2, 2), (3, 3), (500, 2), (700, 3), (900, 64)])
def test_sampled_angles_are_those_of_the_whole_matrix(classes: int, dim: int) -> None:
    got = sample_nearest_angles(classes, dim, seed=5)
    expected = naive(unit_prototypes(5, 0, classes, dim))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("classes", "rows"), [(1025, 1025), (1025, 5), (2100, 300), (2, 2), (3, 1)]
)
@pytest.mark.parametrize("dim", [3, 64])
def test_sub_sample_is_the_whole_sets_beginning(
    classes: int, rows: int, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across the edge of a block, with a block of one, and where every row is asked for."""
    monkeypatch.setattr(prototypes, "_BLOCK", 1024)
    whole = sample_nearest_angles(classes, dim, seed=1)
    met: list[tuple[int, int]] = []
    some = sample_nearest_angles(
        classes, dim, rows=rows, seed=1, progress=lambda *counts: met.append(counts)
    )
    np.testing.assert_allclose(some, whole[:rows], rtol=1e-9)
    assert met[-1] == (classes, classes) and len(met) == -(-classes // 1024)


def test_prototypes_do_not_depend_on_how_they_are_cut() -> None:
    whole = unit_prototypes(3, 0, 3000, 16)
    assert torch.equal(unit_prototypes(3, 1000, 2500, 16), whole[1000:2500])
    assert not torch.equal(unit_prototypes(4, 0, 3000, 16), whole)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(3000))


@pytest.mark.parametrize(("classes", "dim"), [(1000, 8), (2000, 64), (2000, 512)])
def test_mean_is_the_exact_expectation(classes: int, dim: int) -> None:
    expected = nearest_class_moments(classes, dim)
    angles = sample_nearest_angles(classes, dim, seed=2)
    # Neighbours share angles: up to twice the variance of independent rows.
    error = expected.std * math.sqrt(2 / classes)
    assert abs(angles.mean() - expected.mean) < 4 * error
    assert angles.std() == pytest.approx(expected.std, rel=0.08)


def test_bad_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="classes is 1"):
        sample_nearest_angles(1, 8)
    with pytest.raises(ValueError, match="rows is 6"):
        sample_nearest_angles(5, 8, rows=6)
    with pytest.raises(ValueError, match="rows is 0"):
        sample_nearest_angles(5, 8, rows=0)
