"""A summary over seeds, and the Markdown of a table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from arcface_plus.studies.table import cell, latex, markdown, paired_difference, summarize


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
    assert "| a\\|b |" in markdown(["x"], [["a|b"]])


def test_latex_escapes_what_tex_reads() -> None:
    lines = [["a_b & 5 %", "1.23 ± 0.10"], ["λ{x} #$^~\\", "−3°"]]
    assert latex(["", "top-1"], lines).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r" & top-1 \\",
        r"\midrule",
        r"a\_b \& 5 \% & 1.23 $\pm$ 0.10 \\",
        r"$\lambda$\{x\} \#\$\textasciicircum{}\textasciitilde{}\textbackslash{} & $-$3$^\circ$ \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_paired_difference_is_scipys_test() -> None:
    differences = [1.0, -0.5, 2.0, 0.25]
    found = paired_difference(differences)
    assert found.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue) and found.n == 4
    assert str(found) == "+0.69 (± 1.70, p = 0.29)"
    assert str(paired_difference([-1.25])) == "−1.25"
