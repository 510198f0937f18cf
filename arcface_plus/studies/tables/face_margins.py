"""Our own comparison of losses on a small set of faces: what is trained, and the table of it.

No paper has it. Every run of a seed begins from the same weights and sees the same images in the
same order, so that differences are taken seed by seed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arcface_plus.runs.results import VERIFICATION, read_verification
from arcface_plus.studies.table import Summary, markdown, summarize, write_table
from arcface_plus.studies.tables.runs import Row, run_name, runs_of_rows, train_unfinished

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
        *("--head.adaptive", "{kind: curricularface, m: 0.5, s: 32, warmup_steps: 600}"),
    ),
    _row("ArcFace + closeness, diversity", "closeness", "--branch.enabled", "true"),
)


def make_table(
    runs: Path,
    output: Path,
    configs: Path,
    seeds: Sequence[int],
    chosen: Sequence[str],
    overrides: Sequence[str],
    *,
    train: bool,
) -> str:
    """Train what is missing of the ``chosen`` rows, if asked, then write the table of all.

    Returns its Markdown. Raises ValueError where no run is finished.
    """
    rows = chosen_rows(chosen)
    if chosen and not train:
        raise ValueError("--rows chooses what to train, but without --train none runs.")
    train_unfinished(runs_of_rows(rows, configs, seeds), runs, VERIFICATION, overrides, train=train)
    table = table_rows(read_results(runs, seeds))
    if not table:
        raise ValueError(
            f"{runs} holds no finished run (such as {ROWS[0].name}-seed{seeds[0]}); train them "
            "with --train, or name their folder with --runs."
        )
    text = "\n".join(table_markdown(table, measure) for measure in MEASURES)
    write_table(table, text, output, "face_margins")
    return text


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
    results = {
        row.label: {seed: read_verification(runs / run_name(row, seed)) for seed in seeds}
        for row in ROWS
    }
    return {label: {s: r for s, r in seen.items() if r} for label, seen in results.items()}


def table_rows(found: dict[str, dict[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each row label, pair set and measure, in percent.

    mean, std, interval: over seeds. difference and difference_interval: to ``REFERENCE``, of the
    seeds both have; half widths of 95 % t-intervals, NaN with one seed.
    """
    sets = dict.fromkeys(s for by_seed in found.values() for r in by_seed.values() for s in r)
    table = []
    for name, measure in itertools.product(sets, MEASURES):
        values = {
            label: {s: 100 * r[name][measure] for s, r in by_seed.items() if name in r}
            for label, by_seed in found.items()
        }
        for label, scores in values.items():
            if not scores:
                continue
            own, reference = summarize(list(scores.values())), values[REFERENCE]
            pairs = [scores[s] - reference[s] for s in scores if s in reference]
            other = summarize(pairs or [math.nan])
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


def table_markdown(table: Sequence[dict[str, Any]], measure: str) -> str:
    """Return one measure of the table as Markdown: a row a method, two columns a pair set."""
    sets = list(dict.fromkeys(row["set"] for row in table))
    cells = {(row["row"], row["set"]): row for row in table if row["measure"] == measure}
    lines = []
    for row in ROWS:
        known = [cells.get((row.label, name)) for name in sets]
        runs = max((cell["runs"] for cell in known if cell), default=0)
        shown = [words for cell in known for words in _measured(row.label, cell)]
        if not runs:
            shown = [""] * len(shown)
        lines.append([row.label, str(runs or "not run"), *shown])
    heading = [
        words for name in sets for words in (f"{name} {MEASURES[measure]}", f"− {REFERENCE}")
    ]
    return markdown(["loss", "runs", *heading], lines)


def _measured(label: str, cell: dict[str, Any] | None) -> tuple[str, str]:
    if cell is None:
        return "–", "–"
    own = str(Summary(cell["mean"], cell["std"], cell["interval"], cell["runs"]))
    if label == REFERENCE or math.isnan(cell["difference"]):
        return own, ""
    interval = f" (± {cell['difference_interval']:.2f})".replace(" (± nan)", "")
    return own, f"{cell['difference']:+.2f}{interval}"
