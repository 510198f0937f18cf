"""Table A1 of the closeness-and-diversity supplement: its rows, its numbers, and runs beside them.

Zhao et al., "Emphasizing Closeness and Diversity Simultaneously for Deep Face Representation",
ACCV 2022, supplementary material: MS1MV2's subset of 10 000 identities, ResNet18. That λ1 and λ2
weigh closeness and diversity is our reading, [R]: the supplement names them without saying so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from arcface_plus.studies.repeats.comparison import Comparison
from arcface_plus.studies.repeats.records import read_runs, write_records
from arcface_plus.studies.repeats.runs import Run
from arcface_plus.studies.repeats.training import Training, check_trained, train_unfinished
from arcface_plus.studies.table import cell, markdown, write_table

CONFIG = "ms1mv2_10k_r18_closeness"
# Names of the pair sets in the configuration, and the paper's heading of each.
SETS = {"lfw": "LFW", "cfp_fp": "CFP-FP", "agedb_30": "AgeDB"}
IJB = ("IJB-B", "IJB-C")


class Row(NamedTuple):
    """One model: λ1, λ2 and the paper's LFW, CFP-FP, AgeDB, IJB-B and IJB-C, in percent."""

    closeness: float
    diversity: float
    paper: tuple[float, float, float, float, float]

    @property
    def name(self) -> str:
        """Name of the run."""
        return f"{CONFIG}-{self.closeness:g}-{self.diversity:g}"

    @property
    def overrides(self) -> tuple[str, ...]:
        """What the row changes in the configuration."""
        return (
            "--branch.closeness_weight", f"{self.closeness:g}",
            "--branch.diversity_weight", f"{self.diversity:g}",
        )  # fmt: skip


ROWS = (
    Row(0.5, 2.0, (99.28, 88.59, 94.10, 83.09, 86.32)),
    Row(0.1, 2.0, (99.15, 88.64, 94.06, 83.12, 86.33)),
    Row(2.0, 2.0, (99.40, 88.43, 93.85, 82.55, 86.02)),
    Row(5.0, 2.0, (99.37, 88.52, 93.88, 82.13, 85.89)),
    Row(0.5, 1.0, (99.25, 88.53, 94.12, 82.85, 86.10)),
    Row(0.5, 5.0, (99.15, 88.70, 94.17, 83.15, 86.37)),
    Row(0.5, 10.0, (99.12, 88.61, 94.08, 83.21, 86.40)),
)


def wanted_runs(configs: Path) -> list[Run]:
    """Return a run for each row."""
    config = configs / f"{CONFIG}.yaml"
    return [Run(row.name, row.name, config, row.overrides) for row in ROWS]


def make_table(runs: Path, output: Path, configs: Path, how: Training) -> str:
    """Train what is missing, if asked, then write the table; return its Markdown."""
    wanted = wanted_runs(configs)
    failures = train_unfinished(wanted, runs, how)
    comparison = Comparison([run.label for run in wanted], read_runs(wanted, runs))
    table = table_rows(comparison)
    text = table_markdown(table)
    write_table(table, text, output, "table_a1")
    write_records(comparison.all_records, output / "table_a1.json")
    check_trained(failures)
    return text


def table_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a row a model: the weights, the accuracies of its run in percent, the paper's.

    What was not run, or not on that set, is None. IJB is another command's: it has the paper's
    numbers alone.
    """
    table = []
    for number, row in enumerate(ROWS, start=1):
        cells: dict[str, Any] = {
            "model": number,
            "lambda1": row.closeness,
            "lambda2": row.diversity,
        }
        for (name, heading), paper in zip(SETS.items(), row.paper, strict=False):
            known = comparison.summary(row.name, name, "accuracy")
            cells[heading] = known and known.mean
            cells[f"{heading} (paper)"] = paper
        cells |= {f"{name} (paper)": x for name, x in zip(IJB, row.paper[3:], strict=True)}
        table.append(cells)
    return table


def table_markdown(table: Sequence[dict[str, Any]]) -> str:
    """Return the table as Markdown; what was not run says so."""
    lines = [
        [f"{x:g}" if i < 3 else cell(x, missing="not run") for i, x in enumerate(row.values())]
        for row in table
    ]
    return markdown(list(table[0]), lines, words=0)
