"""The rows of a study drawn: a panel for each measure and set, every run a dot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arcface_plus.studies.figure import COLORS, new_figure, save_figure
from arcface_plus.studies.repeats.comparison import Comparison, measure_heading


def draw_comparison(
    comparison: Comparison, measures: Sequence[str], folder: Path, name: str
) -> list[Path]:
    """Write ``folder/name.svg`` and ``.png``: means, 95 % intervals and single runs, in percent.

    Rows without runs are left out. A dashed line stands at the mean of the reference.
    """
    panels = [(m, s) for m in measures for s in comparison.sets_with(m)]
    rows = [label for label, records in comparison.records.items() if records]
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    width = 1.4 + 0.07 * max(map(len, rows)) + 3.0 * columns
    with new_figure(width, lines * (0.28 * len(rows) + 1.0)) as figure:
        every = figure.subplots(lines, columns, sharey=True, squeeze=False).flat
        for axes, (measure, set_name) in zip(every, panels, strict=False):
            for at, label in enumerate(rows):
                values = list(comparison.values(label, set_name, measure).values())
                summary = comparison.summary(label, set_name, measure)
                if summary is None:
                    continue
                axes.plot(values, [at + 0.28] * len(values), ".", color="0.55", markersize=4)
                half = summary.half_width if summary.n > 1 else None
                axes.errorbar(
                    summary.mean, at, xerr=half, fmt="o", markersize=5, capsize=3, color=COLORS[0]
                )
                if label == comparison.reference:
                    axes.axvline(summary.mean, color="0.4", linestyle="--", linewidth=0.8)
            axes.set_yticks(range(len(rows)), rows)
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.set_xlabel(f"{set_name} {measure_heading(measure)} (%)")
        for axes in list(figure.axes)[len(panels) :]:
            axes.remove()
        figure.suptitle("mean, 95 % interval over seeds; a dot a run", fontsize=8)
        return save_figure(figure, folder, name)
