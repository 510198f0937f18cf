"""What the tables share: a summary over seeds, cells, Markdown and the files."""

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


def summarize(values: Sequence[float]) -> Summary:
    """Return the summary of at least one number; deviation and interval need two, else NaN."""
    if len(values) < 2:
        return Summary(values[0], math.nan, math.nan, len(values))
    from scipy.stats import t

    deviation = stdev(values)
    quantile = float(t.ppf(0.975, len(values) - 1))
    return Summary(mean(values), deviation, quantile * deviation / len(values) ** 0.5, len(values))


def cell(value: float | None, form: str = ".2f", missing: str = "–") -> str:
    """Return ``value`` in the format ``form``, or ``missing`` for None."""
    return missing if value is None else format(value, form)


def markdown(heading: Sequence[str], lines: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Return a Markdown table; the first ``words`` columns are aligned left, the others right."""
    rule = "|" + "---|" * words + "---:|" * (len(heading) - words)
    shown = [f"| {' | '.join(cells)} |" for cells in (heading, *lines)]
    return "\n".join([shown[0], rule, *shown[1:]]) + "\n"


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
