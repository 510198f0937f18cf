"""Our own comparison of losses on a small set of faces: what is trained, and the table of it.

It stands for no row of the papers. Every run of a seed begins from the same weights and sees the
same images in the same order, so that differences are taken seed by seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arcface_plus.runs.results import read_verification
from arcface_plus.studies.tables.accuracy_rows import Row
from arcface_plus.studies.tables.accuracy_tables import (
    Summary,
    run_name,
    summarize,
)

CONFIG = "celeba299_iresnet18"
REFERENCE = "ArcFace"
MEASURES = {"accuracy": "accuracy", "auc": "AUC"}  # name in the results: heading


def _row(label: str, suffix: str, *overrides: str) -> Row:
    return Row(label, CONFIG, overrides, f"-{suffix}")


# The file is ArcFace; ``{}`` is a section's defaults, which linear logits and adaptive losses ask.
ROWS = (
    _row("softmax", "softmax", "--head.margin", "{}", "--head.logits", "linear"),
    _row("CosFace", "cosface", "--head.margin.m2", "0", "--head.margin.m3", "0.35"),
    _row("ArcFace", "arcface"),
    _row("ArcFace+", "arcface_plus", "--head.mma_weight", "0.03"),
    _row(
        "CurricularFace",
        "curricularface",
        *("--head.margin", "{}"),
        *("--head.adaptive", "{kind: curricularface, m: 0.5, s: 32, extension: easy}"),
    ),
    _row("ArcFace + closeness, diversity", "closeness", "--branch.enabled", "true"),
)


def chosen_rows(names: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows whose suffix is in ``names``, all of them where it is empty.

    Raises ValueError for a name that is none.
    """
    by_name = {row.suffix[1:]: row for row in ROWS}
    if unknown := sorted(set(names) - by_name.keys()):
        raise ValueError(f"{', '.join(unknown)}: no such row; choose of {', '.join(by_name)}.")
    return tuple(row for name, row in by_name.items() if not names or name in names)


def read_results(runs: Path, seeds: Sequence[int]) -> dict[str, dict[int, dict[str, Any]]]:
    """Return row label → seed → pair set → what ``verification.json`` has of finished runs."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in ROWS:
        found[row.label] = {}
        for seed in seeds:
            results = read_verification(runs / run_name(row, seed))
            if results is not None:
                found[row.label][seed] = results
    return found


def table_rows(found: dict[str, dict[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each row label, pair set and measure, in percent.

    mean, std, interval: over seeds. difference and difference_interval: to ``REFERENCE``, of the
    seeds both have; half widths of 95 % t-intervals, NaN with one seed.
    """
    table = []
    for name in _sets(found):
        for measure in MEASURES:
            values = {
                label: {s: 100 * r[name][measure] for s, r in by_seed.items() if name in r}
                for label, by_seed in found.items()
            }
            for label, by_seed in values.items():
                if not by_seed:
                    continue
                reference = values[REFERENCE]
                pairs = [by_seed[s] - reference[s] for s in by_seed if s in reference]
                own = summarize(list(by_seed.values()))
                other = summarize(pairs) if pairs else Summary(math.nan, math.nan, math.nan, 0)
                table.append(
                    {
                        "row": label,
                        "set": name,
                        "measure": measure,
                        "runs": own.n,
                        "mean": own.mean,
                        "std": own.std,
                        "interval": own.half_width,
                        "difference": other.mean,
                        "difference_interval": other.half_width,
                    }
                )
    return table


def markdown(table: Sequence[dict[str, Any]], measure: str) -> str:
    """Return one measure of the table as Markdown: a row a method, two columns a pair set."""
    sets = list(dict.fromkeys(row["set"] for row in table))
    cells = {(row["row"], row["set"]): row for row in table if row["measure"] == measure}
    shown = MEASURES[measure]
    heading = ["loss", "runs"]
    for name in sets:
        heading += [f"{name} {shown}", f"− {REFERENCE}"]
    lines = ["| " + " | ".join(heading) + " |", "|---" + "|---:" * (len(heading) - 1) + "|"]
    for row in ROWS:
        known = [cells[row.label, name] for name in sets if (row.label, name) in cells]
        if not known:
            lines.append("| " + " | ".join([row.label, "not run"] + [""] * (2 * len(sets))) + " |")
            continue
        line = [row.label, str(max(cell["runs"] for cell in known))]
        for name in sets:
            cell = cells.get((row.label, name))
            line += ["–", "–"] if cell is None else _measured(row.label, cell)
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines) + "\n"


def _sets(found: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    runs = [results for by_seed in found.values() for results in by_seed.values()]
    return list(dict.fromkeys(name for results in runs for name in results))


def _measured(label: str, cell: dict[str, Any]) -> list[str]:
    own = f"{cell['mean']:.2f}"
    if cell["runs"] > 1:
        own += f" ± {cell['std']:.2f} (± {cell['interval']:.2f})"
    if label == REFERENCE or math.isnan(cell["difference"]):
        return [own, ""]
    other = f"{cell['difference']:+.2f}"
    if not math.isnan(cell["difference_interval"]):
        other += f" (± {cell['difference_interval']:.2f})"
    return [own, other]
