"""Table 1 of the MMA paper: the smallest angle that four losses and our solver reach."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from arcface_plus.studies.table import markdown, write_table
from arcface_plus.studies.tammes.losses import LOSSES
from arcface_plus.studies.tammes.paper import ITERATIONS, run_protocol
from arcface_plus.studies.tammes.solve import solve_with_report


class Row(NamedTuple):
    """One set of points: the best angle known (°) and whence, the paper's columns (°)."""

    dim: int
    points: int
    best_known: float
    source: str
    optimal: float
    paper: dict[str, float]


def _row(dim: int, points: int, known: float, source: str, optimal: float, *paper: float) -> Row:
    return Row(dim, points, known, source, optimal, dict(zip(LOSSES, paper, strict=True)))


_SLOANE = "published (Sloane)"
_OURS = "found by this project; the paper quotes Sloane's rounded value"
ROWS = (
    _row(3, 4, 109.4712206, "exact, arccos(−1/3)", 109.5, 109.5, 109.5, 109.4, 109.5),
    _row(3, 30, 38.5971159, _SLOANE, 38.6, 38.5, 0.0, 34.9, 35.4),
    _row(3, 130, 18.5103522, _SLOANE, 18.5, 17.6, 0.0, 12.6, 16.7),
    _row(4, 5, 104.4775122, "exact, arccos(−1/4)", 104.5, 104.5, 104.5, 104.5, 104.5),
    _row(4, 30, 54.249593, _OURS, 54.3, 54.0, 53.7, 49.3, 48.6),
    _row(4, 130, 33.398714, _OURS, 33.4, 32.0, 32.1, 27.9, 27.2),
    _row(4, 600, 19.8054, _OURS, 19.8, 19.3, 0.0, 15.9, 13.1),
    _row(5, 6, 101.5369590, "exact, arccos(−1/5)", 101.5, 101.5, 101.5, 101.2, 101.5),
    _row(5, 30, 65.604697, _OURS, 65.6, 65.5, 64.0, 57.1, 60.0),
    _row(5, 130, 43.760711, _OURS, 43.8, 42.9, 42.5, 35.8, 35.6),
)


def choose_rows(wanted: str) -> tuple[Row, ...]:
    """Return the rows named like ``3x30,4x600``, or all; ValueError for one that is not there."""
    if wanted == "all":
        return ROWS
    named = {f"{row.dim}x{row.points}": row for row in ROWS}
    names = [name.strip() for name in wanted.split(",")]
    if unknown := [name for name in names if name not in named]:
        raise ValueError(f"Table 1 has no row {', '.join(unknown)}; it has {', '.join(named)}.")
    return tuple(named[name] for name in names)


def measure_row(
    row: Row,
    *,
    seeds: Sequence[int],
    losses: Iterable[str] = LOSSES,
    iterations: int = ITERATIONS,
    solve: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Return a row of the table, angles in degrees, times in seconds of the processor."""
    result: dict[str, Any] = {
        "dim": row.dim,
        "points": row.points,
        "best_known": row.best_known,
        "best_known_source": row.source,
        "paper_optimal": row.optimal,
    }
    for loss in losses:
        began = time.process_time()
        runs = run_protocol(
            loss, row.dim, row.points, seeds, iterations=iterations, progress=progress
        )
        angles = np.degrees(runs.angles)
        result |= {
            f"{loss}_paper": row.paper[loss],
            f"{loss}_best": float(angles.max()),
            f"{loss}_median": float(np.median(angles)),
            f"{loss}_worst": float(angles.min()),
            f"{loss}_seeds": len(seeds),
            f"{loss}_cpu_seconds": time.process_time() - began,
        }
    if solve:
        began = time.process_time()
        solution = solve_with_report(row.dim, row.points, progress=progress)
        result |= {
            "solver_certified": math.degrees(solution.certified),
            "solver_method": solution.method,
            "solver_converged": solution.converged,
            "solver_cpu_seconds": time.process_time() - began,
        }
    return result


def save(results: Sequence[dict[str, Any]], output: Path) -> str:
    """Write ``table1.json``, ``.csv`` and ``.md`` into ``output`` and return the Markdown.

    A loss's cell is paper / best of the seeds / their median, in degrees.
    """
    losses = [loss for loss in LOSSES if f"{loss}_best" in results[0]]
    solved = ["our solver"] if "solver_certified" in results[0] else []
    lines = [
        [str(result["dim"]), str(result["points"]), f"{result['best_known']:.3f}"]
        + [
            f"{result[f'{x}_paper']:.1f} / {result[f'{x}_best']:.2f} / {result[f'{x}_median']:.2f}"
            for x in losses
        ]
        + [f"{result['solver_certified']:.4f}" for _ in solved]
        for result in results
    ]
    text = markdown(["d", "n", "best known", *losses, *solved], lines, words=0)
    write_table(results, text, output, "table1")
    (output / "table1.json").write_text(json.dumps(list(results), indent=1), encoding="utf-8")
    return text
