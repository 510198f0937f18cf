from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from arcface_plus.losses.theory.uniform_law import log_negative_weight, negative_weight_spread
from arcface_plus.studies.theory.uniform_negatives import (
    sample_cosines,
    sample_log_negative_weights,
)


@pytest.mark.parametrize("dim", [2, 3, 64])
def test_cosines_have_the_law_of_normalised_rows(dim: int) -> None:
    generator = np.random.default_rng(dim)
    rows = generator.standard_normal((5000, dim))
    naive = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ np.eye(dim)[0]
    drawn = sample_cosines(dim, 5000, generator)
    assert np.abs(drawn).max() <= 1
    assert stats.ks_2samp(drawn, naive).pvalue > 1e-4


def test_sums_scatter_about_the_exact_expectation() -> None:
    classes, dim, scale = 5000, 512, 64.0
    weights = np.exp(sample_log_negative_weights(classes, dim, scale, draws=300, seed=1))
    exact = math.exp(log_negative_weight(classes, dim, scale, form="exact"))
    spread = negative_weight_spread(classes, dim, scale)
    assert abs(weights.mean() / exact - 1) < 4 * spread / math.sqrt(300)
    # A sum of few large terms: its deviation is itself uncertain by a third.
    assert 0.5 * spread < weights.std() / exact < 2 * spread


def test_spread_at_the_papers_setting() -> None:
    """The paper's 4.4562e6 is a draw like any other: in the middle of these."""
    weights = np.exp(sample_log_negative_weights(85_742, 512, 64.0, draws=60, seed=0))
    assert 0.1 < weights.std() / weights.mean() < 0.25
    assert 0.25 < (weights < 4.4562e6).mean() < 0.75
    assert np.median(weights) < math.exp(log_negative_weight(85_742, 512, 64.0, form="exact"))


def test_large_scales_do_not_overflow_and_bad_counts_are_refused() -> None:
    assert np.isfinite(sample_log_negative_weights(100, 8, 5000.0, draws=2)).all()
    with pytest.raises(ValueError, match="draws is 0"):
        sample_log_negative_weights(100, 8, 64.0, draws=0)
    with pytest.raises(ValueError, match="classes is 1"):
        sample_log_negative_weights(1, 8, 64.0, draws=1)
