"""What the commands share whose tables are of runs: their options, and how those are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Of a command whose further options are settings of every run.
TAKES_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}

Runs = Annotated[Path, typer.Option(help="Folder that holds the runs.")]
Output = Annotated[Path, typer.Option(help="Folder for the table and figures.")]
Configs = Annotated[Path, typer.Option(help="Folder of the configurations.")]
Seeds = Annotated[str, typer.Option(help="Seeds, separated by commas.")]
Train = Annotated[
    bool, typer.Option("--train", help="Train (or continue) the runs that are not finished.")
]


def words_of(text: str, separator: str = ",") -> list[str]:
    """Return the words of ``text`` between its separators, without spaces; none of an empty one."""
    return [word.strip() for word in text.split(separator) if word.strip()]


def whole_numbers(text: str) -> list[int]:
    """Return the numbers of ``1,2,3``; ValueError where one is none."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} must be whole numbers separated by commas.") from None
