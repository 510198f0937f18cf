"""A summary over seeds, and the Markdown of a table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from arcface_plus.studies.table import cell, markdown, summarize


def test_summary_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).normal(70, 1, 5)
    summary = summarize(values.tolist())
    low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert summary.mean == pytest.approx(values.mean())
    assert summary.std == pytest.approx(values.std(ddof=1))
    assert 2 * summary.half_width == pytest.approx(high - low)
    assert math.isnan(summarize([3.0]).half_width) and str(summarize([3.0])) == "3.00"
    assert str(summarize([70.0, 72.0])) == "71.00 ± 1.41 (± 12.71)"


def test_markdown() -> None:
    lines = [["a", cell(1.234)], ["b", cell(None)]]
    assert markdown(["", "x"], lines) == "|  | x |\n|---|---:|\n| a | 1.23 |\n| b | – |\n"
