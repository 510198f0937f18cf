"""``arcface-plus study table-a1``: weights of closeness and diversity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcface_plus.cli.study.runs import (
    Run,
    settings_need_training,
    train_unfinished,
)


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
    from arcface_plus.runs.results import VERIFICATION
    from arcface_plus.studies.tables.accuracy_tables import write_csv
    from arcface_plus.studies.tables.closeness_table import (
        CONFIG,
        ROWS,
        markdown,
        table_rows,
    )

    settings_need_training(context.args, train=train)
    if train:
        wanted = [Run(row.name, configs / f"{CONFIG}.yaml", row.overrides) for row in ROWS]
        train_unfinished(wanted, runs, VERIFICATION, context.args)
    table = table_rows(runs)
    output.mkdir(parents=True, exist_ok=True)
    write_csv(table, output / "table_a1.csv")
    text = markdown(table)
    (output / "table_a1.md").write_text(text, encoding="utf-8")
    typer.echo(text)
    typer.echo(f"accuracies in percent; written to {output}")
