"""What the commands share whose tables are of runs: their options, and how those are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from arcface_plus.studies.repeats.training import Training

# Of a command whose further options are settings of every run.
TAKES_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}

EXPLAINED = "percent, ± deviation over seeds (± 95 % interval of the mean)"

Runs = Annotated[Path, typer.Option(help="Folder that holds the runs.")]
Output = Annotated[Path, typer.Option(help="Folder for the table and figures.")]
Configs = Annotated[Path, typer.Option(help="Folder of the configurations.")]
Seeds = Annotated[str, typer.Option(help="Seeds, separated by commas.")]
Train = Annotated[
    bool, typer.Option("--train", help="Train (or continue) the runs that are not finished.")
]
Jobs = Annotated[
    int, typer.Option(min=1, help="Runs at a time, each with its share of the cores, or a GPU.")
]


def training(context: typer.Context, jobs: int, *, train: bool = True) -> Training:
    """Return how a study trains its runs; the words it does not know are their settings."""
    from arcface_plus.studies.repeats.training import Training

    return Training(context.args, jobs, train, say=lambda line: typer.echo(line, err=True))


def words_of(text: str, separator: str = ",") -> list[str]:
    """Return the words of ``text`` between its separators, without spaces; none of an empty one."""
    return [word.strip() for word in text.split(separator) if word.strip()]


def whole_numbers(text: str) -> list[int]:
    """Return the numbers of ``1,2,3``; ValueError where one is none."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} must be whole numbers separated by commas.") from None
