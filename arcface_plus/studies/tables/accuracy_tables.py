"""Tables of accuracy from run folders: mean, deviation and interval over seeds, angles by layer."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from arcface_plus.runs.results import read_measured
from arcface_plus.studies.tables.accuracy_rows import Row

ACCURACY = "accuracy.json"
_NEEDED = {"final", "mean_of_last", "minimum_angles"}
_SEED = re.compile(r"-seed(\d+)$")


class Summary(NamedTuple):
    """Mean, sample deviation and half the width of the 95 % t-interval of n numbers."""

    mean: float
    std: float
    half_width: float
    n: int


class Group(NamedTuple):
    """Runs that differ in the seed alone: a label, their results, the paper's numbers."""

    label: str
    results: tuple[dict[str, Any], ...]
    paper: tuple[float | None, float | None] = (None, None)


def summarize(values: Sequence[float]) -> Summary:
    """Return the summary of at least one number; deviation and interval need two, else NaN."""
    if len(values) < 2:
        return Summary(values[0], math.nan, math.nan, len(values))
    from scipy.stats import t

    deviation = stdev(values)
    quantile = float(t.ppf(0.975, len(values) - 1))
    return Summary(mean(values), deviation, quantile * deviation / len(values) ** 0.5, len(values))


def run_name(row: Row, seed: int) -> str:
    """Return the name of the run of ``row`` with ``seed``."""
    return f"{row.name}-seed{seed}"


def read_result(folder: Path) -> dict[str, Any]:
    """Return what a finished run measured; ValueError where the folder does not hold that."""
    path = folder / ACCURACY
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {ACCURACY}: it is not a finished run with evaluation.accuracy. "
            "Train it, or continue it with --resume auto."
        )
    return read_measured(path, _NEEDED)


def groups_of_rows(rows: Iterable[Row], runs: Path, seeds: Sequence[int]) -> list[Group]:
    """Return a group a row, with the results of those of its runs that are finished."""
    groups = []
    for row in rows:
        folders = (runs / run_name(row, seed) for seed in seeds)
        found = tuple(read_result(f) for f in folders if (f / ACCURACY).is_file())
        groups.append(Group(row.label, found, row.paper))
    return groups


def groups_of_folders(folders: Iterable[Path]) -> list[Group]:
    """Return the runs grouped by name without ``-seedN``, in the order given."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for folder in folders:
        grouped.setdefault(_SEED.sub("", folder.name), []).append(read_result(folder))
    return [Group(name, tuple(results)) for name, results in grouped.items()]


def table_rows(groups: Iterable[Group], *, last: bool = True) -> list[dict[str, Any]]:
    """Return a row a group: runs, then mean, std and interval of top-1 and top-5 in percent.

    ``last``: of the mean over the last evaluations of each run (as the paper's tables), else of the
    final one (as its Figs 3 and 4).
    """
    key = "mean_of_last" if last else "final"
    rows = []
    for group in groups:
        row: dict[str, Any] = {"row": group.label, "runs": len(group.results)}
        for number, paper in zip(("top1", "top5"), group.paper, strict=True):
            values = [100 * r[key][number] for r in group.results if number in r[key]]
            summary = summarize(values) if values else None
            row |= {
                number: summary and summary.mean,
                f"{number}_std": summary and summary.std,
                f"{number}_interval": summary and summary.half_width,
                f"{number}_paper": paper,
            }
        rows.append(row)
    return rows


def angle_rows(groups: Iterable[Group]) -> list[dict[str, Any]]:
    """Return a row a layer: the smallest angle in degrees, mean over each group's runs."""
    finished = [group for group in groups if group.results]
    layers: dict[str, None] = {}
    for group in finished:
        layers |= dict.fromkeys(group.results[0]["minimum_angles"])
    rows = []
    for layer in layers:
        row: dict[str, Any] = {"layer": layer}
        for group in finished:
            angles = [r["minimum_angles"].get(layer) for r in group.results]
            known = [a for a in angles if a is not None]
            row[group.label] = mean(known) if known else None
        rows.append(row)
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the accuracy table as Markdown; what was not run says so."""
    lines = [
        "| | runs | top-1 | top-5 | paper top-1 | paper top-5 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [row["row"], str(row["runs"])]
        for number in ("top1", "top5"):
            cells.append(_measured(row, number))
        cells += [_or_dash(row["top1_paper"]), _or_dash(row["top5_paper"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def angle_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of angles as Markdown."""
    names = [name for name in rows[0] if name != "layer"]
    lines = ["| layer | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for row in rows:
        cells = ("–" if row[n] is None else f"{row[n]:.1f}°" for n in names)
        lines.append(f"| {row['layer']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows that share their keys as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _measured(row: dict[str, Any], number: str) -> str:
    if not row["runs"]:
        return "not run"
    if row[number] is None:
        return "–"
    if row["runs"] < 2:
        return f"{row[number]:.2f}"
    return f"{row[number]:.2f} ± {row[f'{number}_std']:.2f} (± {row[f'{number}_interval']:.2f})"


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
