"""The files of a study: its tables as Markdown, LaTeX and CSV, its runs as JSON, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arcface_plus.studies.repeats.comparison import Comparison, measure_heading
from arcface_plus.studies.repeats.figure import draw_comparison
from arcface_plus.studies.repeats.records import LOGGED, write_records
from arcface_plus.studies.table import latex, markdown, write_csv

Table = tuple[list[str], list[list[str]]]  # heading, lines
ANGLES = dict(
    zip(LOGGED, ("own class", "nearest class", "expected of uniform classes"), strict=True)
)


def write_comparison(
    comparison: Comparison, measures: Sequence[str], output: Path, name: str, *, rows_are: str = ""
) -> str:
    """Write ``output/name`` .json, .csv, .md, .tex, .svg and .png; return the Markdown.

    A table for each of ``measures``, and one of the angles that the runs logged last. ``rows_are``
    heads the column of the rows. Raises ValueError where no run has any of ``measures``.
    """
    long = comparison.long_rows(measures)
    if not long:
        raise ValueError(f"No run has {', '.join(measures) or 'a number to tabulate'}.")
    tables = [measure_table(comparison, measure, rows_are) for measure in measures]
    tables += [table for table in [angle_table(comparison, rows_are)] if table[1]]
    text = "\n".join(markdown(*table) for table in tables)
    write_csv(long, output / f"{name}.csv")
    write_records(comparison.all_records, output / f"{name}.json")
    (output / f"{name}.md").write_text(text, encoding="utf-8")
    (output / f"{name}.tex").write_text("\n".join(latex(*t) for t in tables), encoding="utf-8")
    draw_comparison(comparison, measures, output, name)
    return text


def measure_table(comparison: Comparison, measure: str, rows_are: str = "") -> Table:
    """Return one measure: a line a row, two columns a set (one where there is no reference)."""
    sets = comparison.sets_with(measure)
    heading = [rows_are, "runs"]
    for name in sets:
        heading.append(f"{name} {measure_heading(measure)}")
        if comparison.reference is not None:
            heading.append(f"− {comparison.reference}")
    lines = []
    for label, records in comparison.records.items():
        line = [label, str(len(records) or "not run")]
        for name in sets:
            line.append(shown(comparison, label, name, measure, "–" if records else ""))
            if comparison.reference is not None:
                difference = comparison.difference(label, name, measure)
                line.append("" if difference is None else str(difference))
        lines.append(line)
    return heading, lines


def shown(comparison: Comparison, label: str, name: str, measure: str, missing: str = "–") -> str:
    """Return a cell: mean ± deviation (± interval) over a row's runs, or ``missing``."""
    summary = comparison.summary(label, name, measure)
    return missing if summary is None else str(summary)


def angle_table(comparison: Comparison, rows_are: str = "") -> Table:
    """Return the angles of the last log lines, means over seeds; no lines where none is logged."""
    logged = {label: comparison.logged(label) for label in comparison.records}
    known = [name for name in ANGLES if any(name in angles for angles in logged.values())]
    lines = [
        [label, *(f"{angles[name]:.1f}°" if name in angles else "–" for name in known)]
        for label, angles in logged.items()
    ]
    return [rows_are, *(ANGLES[name] for name in known)], lines if known else []
