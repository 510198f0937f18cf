"""The verification report: one HTML page that needs nothing else.

Charts are inline SVG in the page's own colours and photographs are inside it. There is no script
and no address to load from, and the page forbids itself both. All that comes from data is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arcface_plus.data.pairs.sets import PairSet
from arcface_plus.evaluation.pairs.dependence import Units, find_units
from arcface_plus.evaluation.pairs.intervals import Intervals, score_intervals
from arcface_plus.evaluation.pairs.tenfold import fold_bounds
from arcface_plus.evaluation.pairs.verification import VerificationResult
from arcface_plus.evaluation.report.charts import distance_chart, fold_chart, history_chart
from arcface_plus.evaluation.report.curves import (
    MODEL,
    Curve,
    curve_fars,
    curve_tars,
    det_chart,
    roc_chart,
)
from arcface_plus.evaluation.report.image_pairs import hardest_pairs
from arcface_plus.evaluation.report.tables import (
    Baseline,
    flattened,
    key_figures,
    lead,
    measures,
    notes,
    overview,
)
from arcface_plus.evaluation.report.words import plain, whole
from arcface_plus.files import written_beside

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class ReportSection:
    """Hold what the report shows of one pair set.

    - ``pairs``: names people and shows photographs; None where there are only embeddings.
    - ``distances`` (N,) squared L2 of unit vectors, ``is_same`` (N,) bool, in the pairs' order.
    - ``result``: of these distances.
    - ``baselines``: name → result on the same pairs (or what a log kept of it), shown beside the
      model.
    - ``history``: (step, accuracy) during training.
    - ``units``: what is independent, where that is known better than from ``pairs``.
    """

    name: str
    pairs: PairSet | None
    distances: np.ndarray
    is_same: np.ndarray
    result: VerificationResult
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    history: Sequence[tuple[int, float]] = ()
    units: Units | None = None


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

    Raises ValueError for no sections, two of one name, or arrays that do not fit together.
    """
    if not sections or len({section.name for section in sections}) < len(sections):
        raise ValueError(
            "A report needs sections of different names, but got "
            f"{[section.name for section in sections]}."
        )
    for section in sections:
        _check(section)
    intervals = {section.name: section_intervals(section) for section in sections}
    page = page_templates(Path(__file__).parent).get_template("report.html.j2")
    html = page.render(
        title=title,
        lead=lead({s.name: (s.result, intervals[s.name]) for s in sections}),
        sections=[
            _section_context(section, f"set-{number}", intervals[section.name])
            for number, section in enumerate(sections, 1)
        ],
        overview=overview({s.name: (s.result, intervals[s.name], s.baselines) for s in sections}),
        model=MODEL,
        environment=list(flattened(environment)),
        command=command,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    with written_beside(path) as beside:
        beside.write_text(html, encoding="utf-8")


def page_templates(folder: Path) -> Environment:
    """Return the templates in ``folder``, which may include those of the report."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # slow to import

    return Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )


def _check(section: ReportSection) -> None:
    where, distances = f"Section {section.name!r}", section.distances
    if distances.ndim != 1 or distances.shape != section.is_same.shape:
        raise ValueError(
            f"{where}: distances and is_same must be (N,) both, but are {distances.shape} and "
            f"{section.is_same.shape}."
        )
    if section.is_same.dtype != np.bool_:
        raise ValueError(f"{where}: is_same must be bool, but is {section.is_same.dtype}.")
    if not np.isfinite(distances).all() or distances.min() < 0 or distances.max() > 4 + 1e-6:
        raise ValueError(
            f"{where}: distances must be squared L2 between unit vectors, 0 to 4, but range from "
            f"{distances.min():g} to {distances.max():g}."
        )
    counts = (int(section.is_same.sum()), int((~section.is_same).sum()))
    stated = (section.result.genuine_pairs, section.result.impostor_pairs)
    if counts != stated:
        raise ValueError(
            f"{where}: {counts} genuine and impostor pairs, but its result is of {stated}; give "
            "the distances the result was made from."
        )
    if section.pairs is not None and not np.array_equal(section.pairs.is_same, section.is_same):
        raise ValueError(f"{where}: is_same differs from that of its pairs; keep their order.")


def section_intervals(section: ReportSection) -> Intervals:
    """Return the intervals of a section's accuracy and of its curve."""
    pairs = section.pairs
    units = section.units or find_units(
        section.is_same,
        people=pairs.people() if pairs is not None else None,
        photographs=(pairs.index_a, pairs.index_b) if pairs is not None else None,
    )
    result = section.result
    fars = curve_fars(result)
    return score_intervals(section.distances, section.is_same, result.thresholds, units, fars=fars)


def _section_context(section: ReportSection, anchor: str, intervals: Intervals) -> dict[str, Any]:
    result, distances, is_same = section.result, section.distances, section.is_same
    sizes = np.diff(fold_bounds(len(distances), result.folds))
    limits = np.repeat(np.array(result.thresholds), sizes)
    right = (distances < limits) == is_same
    curved = {
        name: each
        for name, each in section.baselines.items()
        if isinstance(each, VerificationResult)
    }
    curve = Curve(curve_tars(distances, is_same, intervals.fars), intervals, result, curved)
    charts = [
        distance_chart(distances, is_same, right, result),
        fold_chart(result),
        roc_chart(curve),
        det_chart(curve),
    ]
    if section.history:
        levels = {name: each.accuracy for name, each in section.baselines.items()}
        charts.append(history_chart(section.history, levels))
    return {
        "name": section.name,
        "anchor": anchor,
        "result": result,
        "pairs": whole(len(distances)),
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
