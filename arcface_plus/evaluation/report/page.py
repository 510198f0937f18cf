"""The verification report: one HTML page that needs nothing else.

Charts are inline SVG in the page's own colours and photographs are inside it. There is no script
and no address to load from, and the page forbids itself both. All that comes from data is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from arcface_plus.evaluation.pairs.tenfold import fold_bounds
from arcface_plus.evaluation.report.benchmark_charts import discard_chart, group_charts
from arcface_plus.evaluation.report.charts import distance_chart, fold_chart, history_chart
from arcface_plus.evaluation.report.curves import MODEL, det_chart, roc_chart
from arcface_plus.evaluation.report.image_pairs import hardest_pairs
from arcface_plus.evaluation.report.section import ReportSection
from arcface_plus.evaluation.report.tables import (
    flattened,
    key_figures,
    lead,
    measures,
    notes,
    overview,
)
from arcface_plus.evaluation.report.words import plain, whole
from arcface_plus.files import written_beside


def write_report(
    path: str | Path,
    sections: Sequence[ReportSection],
    *,
    title: str,
    environment: Mapping[str, Any],
    command: str,
) -> None:
    """Write the report of ``sections`` to ``path``, beside it first and then renamed.

    ``environment``: versions and machine, nested as it may be.

    Raises ValueError for no sections, and two of one name.
    """
    if not sections or len({section.name for section in sections}) < len(sections):
        raise ValueError(
            "A report needs sections of different names, but got "
            f"{[section.name for section in sections]}."
        )
    page = page_templates(Path(__file__).parent).get_template("report.html.j2")
    html = page.render(
        title=title,
        lead=lead(sections),
        sections=[
            _section_context(section, f"set-{number}") for number, section in enumerate(sections, 1)
        ],
        overview=overview(sections),
        model=MODEL,
        environment=list(flattened(environment)),
        command=command,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    with written_beside(path) as beside:
        beside.write_text(html, encoding="utf-8")


def page_templates(folder: Path) -> Environment:
    """Return the templates in ``folder``, which may include those of the report."""
    return Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )


def _section_context(section: ReportSection, anchor: str) -> dict[str, Any]:
    result, intervals = section.result, section.intervals
    sizes = np.diff(fold_bounds(len(section.distances), result.folds))
    limits = np.repeat(np.array(result.thresholds), sizes)
    right = (section.distances < limits) == section.is_same
    charts = [
        distance_chart(section.distances, section.is_same, right, result),
        fold_chart(result),
        roc_chart(section),
        det_chart(section),
    ]
    charts += [chart for found in section.groups for chart in group_charts(found)]
    if section.discards:
        charts.append(discard_chart(section.discards))
    if section.history:
        levels = {name: each.accuracy for name, each in section.baselines.items()}
        charts.append(history_chart(section.history, levels))
    return {
        "name": section.name,
        "anchor": anchor,
        "result": result,
        "pairs": whole(len(section.distances)),
        "genuine": whole(result.genuine_pairs),
        "impostor": whole(result.impostor_pairs),
        "key_figures": key_figures(result, intervals),
        "columns": [*section.baselines, MODEL],
        "measures": measures(result, section.baselines, intervals),
        "notes": notes(result, intervals),
        "charts": charts,
        "errors": _errors(section, limits, right),
    }


def _errors(section: ReportSection, limits: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """Return false accepts and false rejects: heading, how many there are, and the worst."""
    kinds = (
        ("False accepts", "impostor", "two people taken for one", False),
        ("False rejects", "genuine", "one person taken for two", True),
    )
    return [
        {
            "heading": heading,
            "kind": kind,
            "meaning": meaning,
            "total": int((~right & (section.is_same == genuine)).sum()),
            "shown": None
            if section.pairs is None
            else hardest_pairs(section.pairs, section.distances, limits, genuine=genuine),
        }
        for heading, kind, meaning, genuine in kinds
    ]
