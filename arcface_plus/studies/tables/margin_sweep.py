"""The sweep of m0 … m3, with and without WC-ReLU: Table 3 of the margin softmax paper.

The paper trains on C-MS1M and reports identification on MegaFace; a sweep here trains whatever the
base configuration says and reports its verification sets, so that only the shape of a column can be
compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from arcface_plus.studies.repeats.comparison import Comparison
from arcface_plus.studies.repeats.output import shown
from arcface_plus.studies.repeats.records import read_runs, write_records
from arcface_plus.studies.repeats.runs import Run
from arcface_plus.studies.repeats.training import Training, check_trained, train_unfinished
from arcface_plus.studies.table import cell, markdown, write_table

# Series -> (swept setting, whether the paper has WC-ReLU on, {value: MegaFace identification, %}).
# m1 = 1.35 is from the paper's text, the others from its Table 3. What cos(m1·θ) does past π is not
# stated; raw is the reading that fits the paper's words [reconstructed].
TABLE3: dict[str, tuple[str, bool, dict[float, float]]] = {
    "amp": (
        "m0",
        True,
        {1.0: 88.95, 0.9: 90.05, 0.8: 92.07, 0.7: 93.69, 0.6: 95.39, 0.5: 96.91, 0.4: 97.58,
         0.3: 97.82, 0.2: 97.40, 0.1: 96.85},
    ),
    "sphere": (
        "m1",
        True,
        {1.0: 88.95, 1.2: 95.51, 1.3: 96.25, 1.35: 96.39, 1.4: 96.30, 1.6: 93.04, 1.8: 79.26},
    ),
    "arc": (
        "m2",
        False,
        {0.0: 88.58, 0.1: 92.97, 0.2: 95.96, 0.3: 97.35, 0.4: 97.93, 0.5: 98.21, 0.6: 98.26,
         0.7: 98.26, 0.8: 98.20, 0.9: 98.07},
    ),
    "cos": (
        "m3",
        False,
        {0.0: 88.58, 0.1: 92.44, 0.2: 96.42, 0.3: 97.72, 0.4: 98.27, 0.5: 98.43, 0.6: 98.30,
         0.7: 98.20, 0.8: 98.31, 0.9: 98.18},
    ),
}  # fmt: skip
_NEUTRAL = {"m0": 1.0, "m1": 1.0, "m2": 0.0, "m3": 0.0, "extension": "raw"}
WC_RELU = ("paper", "on", "off", "both")


class SweepRun(NamedTuple):
    """One training of the sweep. ``paper``: its figure there, None where the paper has none."""

    series: str
    setting: str
    value: float
    wc_relu: bool
    paper: float | None

    @property
    def name(self) -> str:
        return f"{self.series}-{self.setting}-{self.value:g}" + ("-relu" if self.wc_relu else "")

    def overrides(self) -> list[str]:
        """Return the command-line words that make a configuration this run."""
        margin = {**_NEUTRAL, "wc_relu": self.wc_relu, self.setting: self.value}
        words = ["--head.adaptive", "null"]
        for key, value in margin.items():
            words += [f"--head.margin.{key}", json.dumps(value).strip('"')]
        return words


def sweep_runs(series: Sequence[str] = tuple(TABLE3), wc_relu: str = "paper") -> list[SweepRun]:
    """Return the runs of the named series, in the table's order.

    ``wc_relu``: as the ``paper`` has it in each series, ``on``, ``off`` or ``both``. Raises
    ValueError for names that are not known.
    """
    unknown = [name for name in series if name not in TABLE3]
    if unknown or not series:
        raise ValueError(f"series {', '.join(unknown) or '(none)'}: use {', '.join(TABLE3)}.")
    if wc_relu not in WC_RELU:
        raise ValueError(f"wc_relu is {wc_relu!r}; use {', '.join(WC_RELU)}.")
    runs = []
    for name in series:
        setting, in_paper, figures = TABLE3[name]
        ways = {"paper": [in_paper], "on": [True], "off": [False], "both": [False, True]}[wc_relu]
        runs += [
            SweepRun(name, setting, value, way, figure if way == in_paper else None)
            for way in ways
            for value, figure in figures.items()
        ]
    return runs


def wanted_runs(config: Path, runs: Iterable[SweepRun]) -> list[Run]:
    """Return ``runs`` as the runs of a study, each a row of its own."""
    return [Run(run.name, run.name, config, run.overrides()) for run in runs]


def make_table(config: Path, output: Path, runs: Sequence[SweepRun], how: Training) -> list[Path]:
    """Train those of ``runs`` that are missing in ``output``, then write the table there."""
    wanted = wanted_runs(config, runs)
    failures = train_unfinished(wanted, output, how)
    records = read_runs(wanted, output)
    if not records:
        check_trained(failures)
    written = write_sweep(output, runs, Comparison([run.label for run in wanted], records))
    check_trained(failures)
    return written


def write_sweep(output: Path, runs: Iterable[SweepRun], comparison: Comparison) -> list[Path]:
    """Write what ``comparison`` has of ``runs`` as sweep.csv, sweep.md and sweep.json.

    A line a run, accuracies in percent beside the paper's figure; runs without a result are left
    out. Raises ValueError where there is no result at all.
    """
    sets = comparison.sets
    if not sets:
        raise ValueError(f"No run of the sweep has finished in {output}; train some first.")
    rows = [
        {
            "series": run.series,
            "setting": run.setting,
            "value": f"{run.value:g}",
            "WC-ReLU": "yes" if run.wc_relu else "no",
            **{name: shown(comparison, run.name, name, "accuracy", missing="") for name in sets},
            "paper (MegaFace id)": cell(run.paper, missing=""),
        }
        for run in runs
        if comparison.records[run.name]
    ]
    text = markdown(list(rows[0]), [list(row.values()) for row in rows], words=2)
    write_table(rows, text, output, "sweep")
    write_records(comparison.all_records, output / "sweep.json")
    return [output / f"sweep.{kind}" for kind in ("csv", "md", "json")]
