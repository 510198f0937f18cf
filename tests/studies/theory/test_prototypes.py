from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from arcface_plus.losses.theory.uniform_prediction import nearest_class_angle, nearest_class_moments
from arcface_plus.studies.theory import prototypes
from arcface_plus.studies.theory.prototypes import (
    extreme_value_angle,
    sample_nearest_angles,
    unit_prototypes,
)

C, D = 85_742, 512


def naive(rows: torch.Tensor) -> np.ndarray:
    cosine = rows.double() @ rows.double().t()
    cosine.fill_diagonal_(-2)
    chord = torch.linalg.vector_norm(rows.double() - rows.double()[cosine.argmax(1)], dim=1)
    return 2 * np.arcsin(chord.numpy() / 2)


def test_extreme_values_where_they_hold() -> None:
    for classes in (100, 10_000, C):
        gap = extreme_value_angle(classes, D) - nearest_class_angle(classes, D)
        assert abs(math.degrees(gap)) < 0.1
    with pytest.raises(ValueError, match="at least 3 classes"):
        extreme_value_angle(2, 8)


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
    some = sample_nearest_angles(classes, dim, rows=rows, seed=1)
    np.testing.assert_allclose(some, whole[:rows], rtol=1e-9)


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
