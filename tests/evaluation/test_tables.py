from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.evaluation.pairs.verification import VerificationResult, verify_distances
from arcface_plus.evaluation.tables import result_rows


def result(wrong: int) -> VerificationResult:
    """Two folds of 100 pairs, of which ``wrong`` genuine pairs a fold are far apart."""
    distances = np.tile(np.repeat([0.5, 1.5], 50), 2)
    is_same = np.tile(np.repeat([True, False], 50), 2)
    distances[:wrong] = distances[100 : 100 + wrong] = 3.0
    return verify_distances(distances, is_same, 2)


def test_markdown_has_the_papers_columns_in_its_order() -> None:
    rows = result_rows({"ArcFace": {"agedb_30": result(5), "lfw": result(1)}})
    assert rows.splitlines() == [
        "| Method | LFW | CFP-FP | AgeDB-30 |",
        "| --- | ---: | ---: | ---: |",
        "| ArcFace | 99.00 | – | 95.00 |",
    ]


def test_other_sets_follow_and_columns_can_be_chosen() -> None:
    results = {"A": {"orl": result(2), "lfw": result(0)}, "B": {"orl": result(3)}}
    assert "| Method | LFW | CFP-FP | AgeDB-30 | orl |" in result_rows(results)
    chosen = result_rows(results, columns=["orl"]).splitlines()
    assert chosen[0] == "| Method | orl |"
    assert chosen[2:] == ["| A | 98.00 |", "| B | 97.00 |"]


def test_latex_is_a_whole_tabular() -> None:
    rows = result_rows({"ArcFace+": {"lfw": result(1)}}, style="latex", columns=["lfw", "cfp_fp"])
    assert rows == (
        "\\begin{tabular}{lrr}\n\\toprule\nMethod & LFW & CFP-FP \\\\\n\\midrule\n"
        "ArcFace+ & 99.00 & -- \\\\\n\\bottomrule\n\\end{tabular}\n"
    )


def test_names_cannot_break_the_table() -> None:
    hostile = "a|b\n& 50% _x_ \\input{y}"
    markdown = result_rows({hostile: {"lfw": result(1)}}, columns=["lfw"])
    assert markdown.splitlines()[2] == r"| a\|b & 50% \_x\_ \\input{y} | 99.00 |"
    latex = result_rows({hostile: {"lfw": result(1)}}, columns=["lfw"], style="latex")
    assert r"a|b \& 50\% \_x\_ \textbackslash{}input\{y\} & 99.00 \\" in latex


def test_unknown_style_and_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'html', but must be one of markdown, latex"):
        result_rows({"A": {}}, style="html")
    with pytest.raises(ValueError, match="no results"):
        result_rows({})
