"""Tables of accuracy from run folders: mean, deviation and interval over seeds, angles by layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from arcface_plus.runs.results import ACCURACY, read_measured
from arcface_plus.studies.table import Summary, cell, markdown, summarize, write_csv, write_table
from arcface_plus.studies.tables.accuracy_figures import draw_angles, draw_sweep
from arcface_plus.studies.tables.accuracy_rows import LAMBDAS, TABLES
from arcface_plus.studies.tables.runs import Row, run_name, runs_of_rows, train_unfinished

_NEEDED = {"final", "mean_of_last", "minimum_angles"}
_SEED = re.compile(r"-seed(\d+)$")


class Group(NamedTuple):
    """Runs that differ in the seed alone: a label, their results, the paper's numbers."""

    label: str
    results: tuple[dict[str, Any], ...]
    paper: tuple[float | None, ...] = (None, None)


def make_table(
    name: str,
    runs: Path,
    output: Path,
    configs: Path,
    seeds: Sequence[int],
    overrides: Sequence[str],
    *,
    train: bool,
) -> str:
    """Train what is missing, if asked, then write the table of ``name``; return its Markdown."""
    rows, sweep = TABLES[name], name.startswith("fig")
    train_unfinished(runs_of_rows(rows, configs, seeds), runs, ACCURACY, overrides, train=train)
    groups = groups_of_rows(rows, runs, seeds)
    if not any(group.results for group in groups):
        raise ValueError(
            f"{runs} holds no finished run of {name} (such as {rows[0].name}-seed{seeds[0]}); "
            "train them with --train, or name their folder with --runs."
        )
    if sweep:
        title = "VGG19-BN" if name == "fig3" else "ResNet20"
        draw_sweep(LAMBDAS, table_rows(groups, last=False), output, name, title)
    return write_tables(groups, output, name, last=not sweep)


def write_tables(groups: Sequence[Group], output: Path, name: str, *, last: bool = True) -> str:
    """Write accuracy and angles as CSV and Markdown, draw the angles; return the accuracy."""
    rows, angles = table_rows(groups, last=last), angle_rows(groups)
    text = accuracy_markdown(rows)
    write_table(rows, text + "\n" + angle_markdown(angles), output, name)
    write_csv(angles, output / f"{name}_angles.csv")
    draw_angles(angles, output, f"{name}_angles")
    return text


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

    def finished(row: Row) -> tuple[dict[str, Any], ...]:
        folders = (runs / run_name(row, seed) for seed in seeds)
        return tuple(read_result(f) for f in folders if (f / ACCURACY).is_file())

    return [Group(row.label, finished(row), row.paper) for row in rows]


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
    layers = dict.fromkeys(x for group in finished for x in group.results[0]["minimum_angles"])
    rows = []
    for layer in layers:
        row: dict[str, Any] = {"layer": layer}
        for group in finished:
            angles = [r["minimum_angles"].get(layer) for r in group.results]
            known = [a for a in angles if a is not None]
            row[group.label] = mean(known) if known else None
        rows.append(row)
    return rows


def accuracy_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the accuracy table as Markdown; what was not run says so."""
    lines = [
        [
            *(row["row"], str(row["runs"])),
            *(_measured(row, "top1"), _measured(row, "top5")),
            *(cell(row["top1_paper"]), cell(row["top5_paper"])),
        ]
        for row in rows
    ]
    return markdown(["", "runs", "top-1", "top-5", "paper top-1", "paper top-5"], lines)


def angle_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of angles as Markdown."""
    names = list(rows[0])[1:]
    lines = [
        [row["layer"], *("–" if row[n] is None else f"{row[n]:.1f}°" for n in names)]
        for row in rows
    ]
    return markdown(["layer", *names], lines)


def _measured(row: dict[str, Any], number: str) -> str:
    if row[number] is None:
        return "–" if row["runs"] else "not run"
    return str(Summary(row[number], row[f"{number}_std"], row[f"{number}_interval"], row["runs"]))
