"""The runs behind a study's table: which there are, and training those that are missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from arcface_plus.studies.accuracy_rows import Row

# Of a command whose further options are settings of every run.
TAKES_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}


class Run(NamedTuple):
    """A run of a study: its name, its configuration, and the settings that differ from it."""

    name: str
    config: Path
    overrides: Sequence[str]


def runs_of_rows(rows: Iterable[Row], configs: Path, seeds: Sequence[int]) -> list[Run]:
    """Return a run for each row and seed.

    Seed by seed: an interrupted study has whole comparisons, not whole rows.
    """
    from arcface_plus.studies.accuracy_tables import run_name

    return [
        Run(
            run_name(row, seed),
            configs / f"{row.config}.yaml",
            [*row.overrides, "--seed", str(seed)],
        )
        for seed in seeds
        for row in rows
    ]


def train_unfinished(
    wanted: Iterable[Run], runs: Path, result: str, overrides: Sequence[str]
) -> None:
    """Train (or continue) those of ``wanted`` without ``runs/NAME/result``, one after the other."""
    from arcface_plus.cli.train import train

    for run in wanted:
        if (runs / run.name / result).is_file():
            continue
        resume = "auto" if (runs / run.name).is_dir() else "never"
        words = [*run.overrides, "--name", run.name, "--output", str(runs), *overrides]
        train(run.config, words, resume=resume)


def settings_need_training(settings: Sequence[str], *, train: bool) -> None:
    """Raise ValueError where settings of runs are given, but none would be trained."""
    if settings and not train:
        raise ValueError(f"{' '.join(settings)} would change runs, but without --train none runs.")


def whole_numbers(text: str) -> list[int]:
    """Return the numbers of ``1,2,3``; ValueError where one is none."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} must be whole numbers separated by commas.") from None
