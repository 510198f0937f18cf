"""The tables of docs/distillation.md are those of the committed runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from arcface_plus.studies.repeats.comparison import Comparison
from arcface_plus.studies.repeats.output import measure_table
from arcface_plus.studies.repeats.records import read_records
from arcface_plus.studies.table import markdown

PAGE = Path(__file__).resolve().parents[2] / "docs" / "distillation.md"
MARKED = re.compile(r"<!-- (\w+): (\S+), differences from (.+) -->\n((?:\|.*\n)+)")
TABLES = MARKED.findall(PAGE.read_text(encoding="utf-8"))


def test_both_files_have_tables() -> None:
    assert {name for name, *_ in TABLES} == {"distillation", "compatible"} and len(TABLES) >= 4


@pytest.mark.parametrize(("name", "measure", "reference", "table"), TABLES)
def test_committed_runs_give_the_table(name: str, measure: str, reference: str, table: str) -> None:
    records = read_records(PAGE.parent / "results" / f"{name}.json")
    rows = list(dict.fromkeys(record.row for record in records))
    comparison = Comparison(rows, records, reference)
    assert len(records) == 3 * len(rows)
    assert markdown(*measure_table(comparison, measure)) == table
