"""What the runs of each row measured, over seeds, and how rows differ, seed by seed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from statistics import mean
from typing import Any

from arcface_plus.studies.repeats.records import LOGGED, Record
from arcface_plus.studies.table import Difference, Summary, paired_difference, summarize

# Name in the records → in headings.
MEASURES = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "eer": "EER",
    "top1": "top-1",
    "top5": "top-5",
    "top1_final": "final top-1",
    "top5_final": "final top-5",
}
DEFAULT = ("accuracy", "auc", "top1", "top5")


def measure_heading(measure: str) -> str:
    """Return how ``measure`` is called in headings: AUC, TAR@0.01 …"""
    return MEASURES.get(measure, measure.upper())


def known_measures(names: Sequence[str]) -> list[str]:
    """Return the names of measures as records have them: ``tar@1e-2`` is tar@0.01.

    Raises ValueError for what is no measure.
    """
    tars = {name: re.fullmatch(r"tar@(0?\.\d+|\d+e-\d+)", name) for name in names}
    if unknown := [name for name in names if name not in MEASURES and not tars[name]]:
        raise ValueError(
            f"{', '.join(unknown)} is no measure; choose of {', '.join(MEASURES)}, tar@0.01 (TAR "
            "at that FAR)."
        )
    return [f"tar@{float(tar[1]):g}" if (tar := tars[name]) else name for name in names]


class Comparison:
    """Rows with their runs. Numbers are in percent.

    ``labels``: the rows in order; one without runs stays. ``reference``: the row from which the
    others' differences are taken, None for none. Raises ValueError where a row has one seed twice
    or runs of different settings, and for a reference that is no row.
    """

    def __init__(
        self, labels: Iterable[str], records: Iterable[Record], reference: str | None = None
    ) -> None:
        self.reference = reference
        self.records: dict[str, dict[int, Record]] = {label: {} for label in labels}
        for record in records:
            self._add(record)
        if reference is not None and reference not in self.records:
            raise ValueError(
                f"There is no row {reference!r} to compare with; choose of "
                f"{', '.join(self.records)}."
            )

    def _add(self, record: Record) -> None:
        if record.row not in self.records:
            raise ValueError(
                f"The run {record.run} is of the row {record.row!r}, but the rows are "
                f"{', '.join(self.records)}."
            )
        seeds = self.records[record.row]
        first = next(iter(seeds.values()), record)
        if record.seed in seeds:
            raise ValueError(
                f"{record.row} has seed {record.seed} twice, in the runs {seeds[record.seed].run} "
                f"and {record.run}; leave one out."
            )
        if record.settings != first.settings:
            raise ValueError(
                f"{record.row} has runs of different settings, {first.run} and {record.run}: "
                "compare their config.yaml, and leave one out."
            )
        seeds[record.seed] = record

    @property
    def all_records(self) -> list[Record]:
        return [record for seeds in self.records.values() for record in seeds.values()]

    @property
    def sets(self) -> list[str]:
        """The names of the sets that any run was scored on."""
        return list(dict.fromkeys(name for record in self.all_records for name in record.sets))

    def sets_with(self, measure: str) -> list[str]:
        """The names of the sets on which any run has ``measure``."""
        return [s for s in self.sets if any(self.values(row, s, measure) for row in self.records)]

    def chosen_measures(self, wanted: Sequence[str] = ()) -> list[str]:
        """Return ``wanted``, by default those of ``DEFAULT`` that the runs have.

        Raises ValueError for a measure that no run has.
        """
        known = dict.fromkeys(
            m for record in self.all_records for s in record.sets.values() for m in s.measured
        )
        if unknown := [measure for measure in wanted if measure not in known]:
            raise ValueError(
                f"No run has {', '.join(unknown)}; choose of {', '.join(known) or 'nothing'}."
            )
        return list(wanted) or [measure for measure in DEFAULT if measure in known]

    def values(self, label: str, name: str, measure: str) -> dict[int, float]:
        """Return seed → percent of the runs of a row that have ``measure`` on the set ``name``."""
        scored = {
            seed: record.sets[name].measured
            for seed, record in self.records[label].items()
            if name in record.sets
        }
        return {s: 100 * numbers[measure] for s, numbers in scored.items() if measure in numbers}

    def summary(self, label: str, name: str, measure: str) -> Summary | None:
        """Return the summary over the seeds of a row, None where it has none."""
        values = self.values(label, name, measure)
        return summarize(list(values.values())) if values else None

    def difference(self, label: str, name: str, measure: str) -> Difference | None:
        """Return the difference from the reference over the seeds that both have.

        None for the reference itself, and where there is no such seed.
        """
        if self.reference in (None, label):
            return None
        own, other = (self.values(row, name, measure) for row in (label, str(self.reference)))
        both = [seed for seed in own if seed in other]
        return paired_difference([own[s] - other[s] for s in both]) if both else None

    def logged(self, label: str) -> dict[str, float]:
        """Return the mean over a row's runs of each angle of their last log line, in degrees."""
        logs = [record.log for record in self.records[label].values()]
        return {
            k: mean(log[k] for log in logs) for k in LOGGED if logs and all(k in x for x in logs)
        }

    def long_rows(self, measures: Iterable[str]) -> list[dict[str, Any]]:
        """Return a dictionary for each row, set and measure that has runs; None: there is none."""
        table = []
        for name, measure, label in itertools.product(self.sets, measures, self.records):
            own = self.summary(label, name, measure)
            if own is None:
                continue
            other = self.difference(label, name, measure)
            table.append(
                {
                    "row": label,
                    "set": name,
                    "measure": measure,
                    "runs": own.n,
                    "mean": own.mean,
                    "std": own.std,
                    "interval": own.half_width,
                    "reference": self.reference,
                    "difference": other and other.mean,
                    "difference_interval": other and other.half_width,
                    "p": other and other.p,
                }
            )
        return table
