"""Our own comparison of losses on a small set of faces: what is trained, and the table of it.

No paper has it. Every run of a seed begins from the same weights and sees the same images in the
same order, so that differences are taken seed by seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arcface_plus.runs.configuration import load_config
from arcface_plus.studies.figure import check_drawable
from arcface_plus.studies.repeats.comparison import Comparison
from arcface_plus.studies.repeats.output import write_comparison
from arcface_plus.studies.repeats.records import Record, read_records, read_runs
from arcface_plus.studies.repeats.runs import Row, runs_of_rows
from arcface_plus.studies.repeats.training import Training, check_trained, train_unfinished

CONFIG = "celeba299_iresnet18"
REFERENCE = "arcface"
MEASURES = ("accuracy", "auc")
SEEDS = (1, 2, 3)


def face_rows(config: Path) -> tuple[Row, ...]:
    """Return the rows of the study of ``config``, the file of its ArcFace.

    ``{}`` is a section's defaults, which linear logits and adaptive losses ask. CurricularFace has
    ArcFace's margin, scale and schedule.
    """
    margin = load_config(config).head.margin
    curricular = (
        f"{{kind: curricularface, m: {margin.m2:g}, s: {margin.s:g}, "
        f"extension: {margin.extension}, warmup_steps: {margin.warmup_steps}}}"
    )

    def row(label: str, suffix: str, *overrides: str) -> Row:
        return Row(label, config.stem, overrides, f"-{suffix}")

    return (
        row("softmax", "softmax", "--head.margin", "{}", "--head.logits", "linear"),
        row("CosFace", "cosface", "--head.margin.m2", "0", "--head.margin.m3", "0.35"),
        row("ArcFace", "arcface"),
        row("ArcFace+", "arcface_plus", "--head.mma_weight", "0.03"),
        row(
            "CurricularFace",
            "curricularface",
            *("--head.margin", "{}", "--head.adaptive", curricular),
        ),
        row("ArcFace + closeness, diversity", "closeness", "--branch.enabled", "true"),
    )


def make_table(
    config: Path,
    runs: Path,
    output: Path,
    seeds: Sequence[int],
    chosen: Sequence[str],
    reference: str,
    how: Training,
) -> str:
    """Train what is missing of the ``chosen`` rows, if asked, then write the table of all.

    ``runs``: the folder of the runs, or the JSON file of them that an earlier table left; ``seeds``
    may be empty: 1, 2, 3, or all that the file has. ``reference``: the row to compare with. Returns
    the table's Markdown. Raises ValueError where no run is finished.
    """
    every = face_rows(config)
    rows, [against] = chosen_rows(every, chosen), chosen_rows(every, [reference])
    if chosen and not how.enabled:
        raise ValueError("--rows chooses what to train, but without --train none runs.")
    if how.enabled and runs.is_file():
        raise ValueError(f"{runs} is a file; to train, name a folder of runs with --runs.")
    check_drawable()
    numbers = seeds or SEEDS
    failures = train_unfinished(runs_of_rows(rows, config.parent, numbers), runs, how)
    if runs.is_file():
        records = _of_file(runs, config.stem, seeds)
    else:
        records = read_runs(runs_of_rows(every, config.parent, numbers), runs)
    if not records:
        check_trained(failures)
        raise ValueError(
            f"{runs} holds no finished run (such as {every[0].name}-seed{numbers[0]}); train them "
            "with --train, or name their folder with --runs."
        )
    comparison = Comparison([row.label for row in every], records, against.label)
    text = write_comparison(comparison, MEASURES, output, "face_margins", rows_are="loss")
    check_trained(failures)
    return text


def chosen_rows(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Return the rows that ``names`` call, all of them where it is empty.

    Raises ValueError for a name that is none.
    """
    by_name = {row.suffix[1:]: row for row in rows}
    if unknown := sorted(set(names) - by_name.keys()):
        raise ValueError(f"{', '.join(unknown)}: no such row; choose of {', '.join(by_name)}.")
    return [row for name, row in by_name.items() if not names or name in names]


def _of_file(path: Path, config: str, seeds: Sequence[int]) -> list[Record]:
    records = read_records(path)
    others = {record.config for record in records} - {config}
    if others:
        raise ValueError(
            f"{path} has runs of {', '.join(sorted(others))}, not of {config}; say so by --config."
        )
    return [record for record in records if not seeds or record.seed in seeds]
