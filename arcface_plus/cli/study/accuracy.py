"""``arcface-plus study table2 … table6, fig3, fig4, faces, accuracy``: classification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from arcface_plus.cli.study.runs import (
    TAKES_SETTINGS,
    Configs,
    Jobs,
    Output,
    Runs,
    Seeds,
    Train,
    training,
    whole_numbers,
)

_TITLES = {
    "table2": "Table 2 of the MMA paper: layers that are penalised, VGG19-BN on CIFAR-100.",
    "table3": "Table 3 of the MMA paper, accuracies and angles: rival penalties.",
    "table4": "Table 4 of the MMA paper: with AutoAugment, WRN-28-10 on CIFAR-100.",
    "table5": "Table 5 of the MMA paper: four nets on CIFAR-100.",
    "table6": "Table 6 of the MMA paper: two nets on TinyImageNet.",
    "fig3": "Figure 3 of the MMA paper: accuracy against λ, VGG19-BN on CIFAR-100.",
    "fig4": "Figure 4 of the MMA paper: accuracy against λ, ResNet20 on CIFAR-100.",
    "faces": "Our own comparison of penalties on identities of face crops, ResNet20.",
}


def register(app: typer.Typer) -> None:
    """Add a command for every table, and one for any run folders, to ``app``."""
    for name, title in _TITLES.items():
        app.command(
            name,
            help=f"{title} Further options are settings of every run (--data.path …).",
            context_settings=TAKES_SETTINGS,
        )(_table_command(name))
    app.command("accuracy")(accuracy_command)


def _table_command(name: str) -> Callable[..., None]:
    def command(
        context: typer.Context,
        output: Output,
        runs: Runs = Path("runs"),
        configs: Configs = Path("configs/classification"),
        seeds: Seeds = "123,223,323,423,523",
        train: Train = False,
        jobs: Jobs = 1,
    ) -> None:
        from arcface_plus.studies.tables.accuracy_tables import make_table

        how = training(context, jobs, train=train)
        _show(make_table(name, runs, output, configs, whole_numbers(seeds), how), output)

    return command


def accuracy_command(
    folders: Annotated[list[Path], typer.Argument(help="Finished runs, grouped by NAME-seedN.")],
    output: Output,
) -> None:
    """Table of any runs: mean ± deviation over seeds, smallest angle of every layer."""
    from arcface_plus.studies.tables.accuracy_tables import (
        comparison_of_folders,
        write_tables,
    )

    _show(write_tables(comparison_of_folders(folders), output, "accuracy"), output)


def _show(table: str, output: Path) -> None:
    typer.echo(table)
    typer.echo(f"± sample deviation (± 95 % interval of the mean); written to {output}")
