"""``arcface-plus study table2 … table6, fig3, fig4, faces, accuracy``: classification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from arcface_plus.cli.study.runs import (
    TAKES_SETTINGS,
    runs_of_rows,
    settings_need_training,
    train_unfinished,
    whole_numbers,
)

Runs = Annotated[Path, typer.Option(help="Folder that holds the runs, NAME-seedN.")]
Output = Annotated[Path, typer.Option(help="Folder for the table and figures.")]
Configs = Annotated[Path, typer.Option(help="Folder of the configurations.")]
Seeds = Annotated[str, typer.Option(help="Seeds, separated by commas.")]
Train = Annotated[
    bool, typer.Option("--train", help="Train (or continue) the runs that are not finished.")
]

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
    ) -> None:
        study(name, runs, output, configs, whole_numbers(seeds), context.args, train=train)

    return command


def study(
    name: str,
    runs: Path,
    output: Path,
    configs: Path,
    seeds: Sequence[int],
    overrides: Sequence[str],
    *,
    train: bool,
) -> None:
    """Train what is missing, if asked, then write the table of ``name`` into ``output``."""
    from arcface_plus.studies.tables.accuracy_figures import draw_sweep
    from arcface_plus.studies.tables.accuracy_rows import (
        LAMBDAS,
        TABLES,
    )
    from arcface_plus.studies.tables.accuracy_tables import (
        ACCURACY,
        groups_of_rows,
        table_rows,
    )

    settings_need_training(overrides, train=train)
    rows = TABLES[name]
    if train:
        train_unfinished(runs_of_rows(rows, configs, seeds), runs, ACCURACY, overrides)
    groups = groups_of_rows(rows, runs, seeds)
    if not any(group.results for group in groups):
        raise ValueError(
            f"{runs} holds no finished run of {name} (such as {rows[0].name}-seed{seeds[0]}); "
            "train them with --train, or name their folder with --runs."
        )
    sweep = name.startswith("fig")
    write_tables(groups, output, name, last=not sweep)
    if sweep:
        title = "VGG19-BN" if name == "fig3" else "ResNet20"
        draw_sweep(LAMBDAS, table_rows(groups, last=False), output, name, title)


def accuracy_command(
    folders: Annotated[list[Path], typer.Argument(help="Finished runs, grouped by NAME-seedN.")],
    output: Output,
) -> None:
    """Table of any runs: mean ± deviation over seeds, smallest angle of every layer."""
    from arcface_plus.studies.tables.accuracy_tables import groups_of_folders

    write_tables(groups_of_folders(folders), output, "accuracy", last=True)


def write_tables(groups: Sequence, output: Path, name: str, *, last: bool) -> None:  # type: ignore[type-arg]
    """Write accuracy and angles as CSV and Markdown, draw the angles, show the accuracy."""
    from arcface_plus.studies.tables import accuracy_tables
    from arcface_plus.studies.tables.accuracy_figures import draw_angles

    rows = accuracy_tables.table_rows(groups, last=last)
    angles = accuracy_tables.angle_rows(groups)
    output.mkdir(parents=True, exist_ok=True)
    accuracy_tables.write_csv(rows, output / f"{name}.csv")
    accuracy_tables.write_csv(angles, output / f"{name}_angles.csv")
    text = accuracy_tables.markdown(rows)
    (output / f"{name}.md").write_text(
        text + "\n" + accuracy_tables.angle_markdown(angles), encoding="utf-8"
    )
    draw_angles(angles, output, f"{name}_angles")
    typer.echo(text)
    typer.echo(f"± sample deviation (± 95 % interval of the mean); written to {output}")
