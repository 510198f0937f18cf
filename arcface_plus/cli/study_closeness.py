"""``arcface-plus study table-a1``: weights of closeness and diversity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

TAKES_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}


def table_a1_command(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="Folder for the table.")],
    runs: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    configs: Annotated[Path, typer.Option(help="Folder of the configuration.")] = Path(
        "configs/closeness"
    ),
    train: Annotated[
        bool, typer.Option("--train", help="Train (or continue) the runs that are not finished.")
    ] = False,
) -> None:
    """Table A1 of the closeness-and-diversity paper: seven pairs of weights, beside its numbers.

    Further options are settings of every run (--data.path …).
    """
    from arcface_plus.studies.accuracy_tables import write_csv
    from arcface_plus.studies.closeness_table import markdown, table_rows

    if context.args and not train:
        raise ValueError(
            f"{' '.join(context.args)} would change runs, but without --train none runs."
        )
    if train:
        train_missing(runs, configs, context.args)
    table = table_rows(runs)
    output.mkdir(parents=True, exist_ok=True)
    write_csv(table, output / "table_a1.csv")
    text = markdown(table)
    (output / "table_a1.md").write_text(text, encoding="utf-8")
    typer.echo(text)
    typer.echo(f"accuracies in percent; written to {output}")


def train_missing(runs: Path, configs: Path, overrides: Sequence[str]) -> None:
    """Train every row that is not finished, one after the other."""
    from arcface_plus.cli.train import train
    from arcface_plus.studies.closeness_table import CONFIG, ROWS, is_finished

    for row in ROWS:
        if is_finished(runs, row):
            continue
        resume = "auto" if (runs / row.name).is_dir() else "never"
        words = [*row.overrides, "--output", str(runs), *overrides]
        train(configs / f"{CONFIG}.yaml", words, resume=resume)
