"""Tables of accuracy on test images beside the papers' numbers, and of the angles by layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from arcface_plus.runs.results import ACCURACY
from arcface_plus.studies.figure import check_drawable
from arcface_plus.studies.repeats.comparison import Comparison
from arcface_plus.studies.repeats.output import shown
from arcface_plus.studies.repeats.records import TEST_IMAGES, read_run, read_runs, write_records
from arcface_plus.studies.repeats.runs import Run, runs_of_rows
from arcface_plus.studies.repeats.training import Training, check_trained, train_unfinished
from arcface_plus.studies.table import cell, markdown, write_csv, write_table
from arcface_plus.studies.tables.accuracy_figures import draw_angles, draw_sweep
from arcface_plus.studies.tables.accuracy_rows import LAMBDAS, TABLES

Paper = Mapping[str, tuple[float | None, ...]]  # row label → top-1, top-5
# The papers' tables have the mean over the last evaluations, Figs. 3 and 4 the final net.
MEAN_OF_LAST, FINAL = ("top1", "top5"), ("top1_final", "top5_final")
_SEED = re.compile(r"-seed(\d+)$")


def make_table(
    name: str, runs: Path, output: Path, configs: Path, seeds: Sequence[int], how: Training
) -> str:
    """Train what is missing, if asked, then write the table of ``name``; return its Markdown."""
    rows, sweep = TABLES[name], name.startswith("fig")
    wanted = runs_of_rows(rows, configs, seeds)
    check_drawable()
    failures = train_unfinished(wanted, runs, how)
    comparison = Comparison([row.label for row in rows], read_runs(wanted, runs))
    if not comparison.all_records:
        check_trained(failures)
        raise ValueError(
            f"{runs} holds no finished run of {name} (such as {wanted[0].name}); "
            "train them with --train, or name their folder with --runs."
        )
    if sweep:
        title = "VGG19-BN" if name == "fig3" else "ResNet20"
        top1 = [comparison.summary(row.label, TEST_IMAGES, FINAL[0]) for row in rows]
        draw_sweep(LAMBDAS, top1, output, name, title)
    paper = {row.label: row.paper for row in rows}
    text = write_tables(comparison, output, name, FINAL if sweep else MEAN_OF_LAST, paper)
    check_trained(failures)
    return text


def write_tables(
    comparison: Comparison,
    output: Path,
    name: str,
    measures: tuple[str, str] = MEAN_OF_LAST,
    paper: Paper | None = None,
) -> str:
    """Write accuracy and angles as CSV and Markdown, the runs as JSON; return the accuracy."""
    angles = angle_rows(comparison)
    text = accuracy_markdown(comparison, measures, paper or {})
    long = comparison.long_rows(measures)
    write_table(long, text + "\n" + angle_markdown(angles), output, name)
    write_records(comparison.all_records, output / f"{name}.json")
    write_csv(angles, output / f"{name}_angles.csv")
    draw_angles(angles, output, f"{name}_angles")
    return text


def comparison_of_folders(folders: Iterable[Path]) -> Comparison:
    """Return the runs grouped by name without ``-seedN``, in the order given.

    Raises ValueError where a folder holds no finished run.
    """
    records = []
    for folder in folders:
        if not (folder / ACCURACY).is_file():
            raise ValueError(
                f"{folder} has no {ACCURACY}: it is not a finished run with evaluation.accuracy. "
                "Train it, or continue it with --resume auto."
            )
        label = _SEED.sub("", folder.name)
        records.append(read_run(folder, Run(label, folder.name, Path(f"{label}.yaml"))))
    return Comparison([record.row for record in records], records)


def angle_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a row a layer: the smallest angle in degrees, mean over each row's runs."""
    angles = {
        label: [record.minimum_angles for record in seeds.values()]
        for label, seeds in comparison.records.items()
        if seeds
    }
    layers = dict.fromkeys(layer for runs in angles.values() for layer in runs[0])
    rows = []
    for layer in layers:
        row: dict[str, Any] = {"layer": layer}
        for label, runs in angles.items():
            known = [run[layer] for run in runs if layer in run]
            row[label] = mean(known) if known else None
        rows.append(row)
    return rows


def accuracy_markdown(comparison: Comparison, measures: tuple[str, str], paper: Paper) -> str:
    """Return the accuracy table as Markdown; what was not run says so."""
    lines = []
    for label, runs in comparison.records.items():
        missing = "–" if runs else "not run"
        scores = [shown(comparison, label, TEST_IMAGES, m, missing) for m in measures]
        printed = [cell(number) for number in paper.get(label, (None, None))]
        lines.append([label, str(len(runs)), *scores, *printed])
    return markdown(["", "runs", "top-1", "top-5", "paper top-1", "paper top-5"], lines)


def angle_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of angles as Markdown."""
    names = list(rows[0])[1:]
    lines = [
        [row["layer"], *("–" if row[n] is None else f"{row[n]:.1f}°" for n in names)]
        for row in rows
    ]
    return markdown(["layer", *names], lines)
