"""What the tables share: summaries over seeds, cells, Markdown, LaTeX and the files."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple


class Summary(NamedTuple):
    """Mean, sample deviation and half the width of the 95 % t-interval of n numbers."""

    mean: float
    std: float
    half_width: float
    n: int

    def __str__(self) -> str:
        """Show mean ± deviation (± interval), or the mean of a single number alone."""
        spread = f" ± {self.std:.2f} (± {self.half_width:.2f})" if self.n > 1 else ""
        return f"{self.mean:.2f}{spread}"


class Difference(NamedTuple):
    """Mean of paired differences, half its 95 % t-interval, p of the paired t-test, pairs."""

    mean: float
    half_width: float
    p: float
    n: int

    def __str__(self) -> str:
        """Show +mean (± interval, p = …), as far as the number of pairs gives them."""
        p = "" if math.isnan(self.p) else f", p = {self.p:.2g}"
        spread = f" (± {self.half_width:.2f}{p})" if self.n > 1 else ""
        return f"{self.mean:+.2f}".replace("-", "−") + spread


def summarize(values: Sequence[float]) -> Summary:
    """Return the summary of at least one number; deviation and interval need two, else NaN."""
    if len(values) < 2:
        return Summary(values[0], math.nan, math.nan, len(values))
    from scipy.stats import t

    deviation = stdev(values)
    quantile = float(t.ppf(0.975, len(values) - 1))
    return Summary(mean(values), deviation, quantile * deviation / len(values) ** 0.5, len(values))


def paired_difference(differences: Sequence[float]) -> Difference:
    """Return the summary of at least one paired difference, and the two-sided p of their t-test.

    p is NaN for a single one, and where all are equal: without spread there is nothing to test by.
    """
    summary = summarize(differences)
    if not summary.std > 0:
        return Difference(summary.mean, summary.half_width, math.nan, summary.n)
    from scipy.stats import ttest_1samp

    p = float(ttest_1samp(differences, 0.0).pvalue)
    return Difference(summary.mean, summary.half_width, p, summary.n)


def cell(value: float | None, form: str = ".2f", missing: str = "–") -> str:
    """Return ``value`` in the format ``form``, or ``missing`` for None."""
    return missing if value is None else format(value, form)


def markdown(heading: Sequence[str], lines: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Return a Markdown table; the first ``words`` columns are aligned left, the others right."""
    rule = "|" + "---|" * words + "---:|" * (len(heading) - words)
    escaped = ([cell.replace("|", r"\|") for cell in cells] for cells in (heading, *lines))
    shown = [f"| {' | '.join(cells)} |" for cells in escaped]
    return "\n".join([shown[0], rule, *shown[1:]]) + "\n"


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"±": r"$\pm$", "−": "$-$", "°": r"$^\circ$", "λ": r"$\lambda$", "–": "--"}


def latex(heading: Sequence[str], lines: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Return the table of ``markdown`` as a LaTeX tabular (of the package booktabs)."""

    def row(cells: Sequence[str]) -> str:
        escaped = ("".join(_LATEX.get(character, character) for character in c) for c in cells)
        return " & ".join(escaped) + r" \\"

    columns = "l" * words + "r" * (len(heading) - words)
    body = [row(heading), r"\midrule", *map(row, lines)]
    inner = "\n".join([r"\toprule", *body, r"\bottomrule"])
    return f"\\begin{{tabular}}{{{columns}}}\n{inner}\n\\end{{tabular}}\n"


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows that share their keys as CSV, into a folder made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_table(rows: Sequence[Mapping[str, Any]], text: str, folder: Path, name: str) -> None:
    """Write ``rows`` as ``folder/name.csv`` and ``text``, their Markdown, as ``folder/name.md``."""
    write_csv(rows, folder / f"{name}.csv")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
