"""``arcface-plus study face-margins``: losses compared on a small set of faces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcface_plus.cli.study.runs import (
    runs_of_rows,
    settings_need_training,
    train_unfinished,
    whole_numbers,
)


def face_margins_command(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="Folder for the table.")],
    runs: Annotated[Path, typer.Option(help="Folder that holds the runs, NAME-seedN.")] = Path(
        "runs"
    ),
    configs: Annotated[Path, typer.Option(help="Folder of the configuration.")] = Path(
        "configs/faces"
    ),
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "1,2,3",
    rows: Annotated[
        str, typer.Option(help="Train these alone, such as arcface,cosface (all if empty).")
    ] = "",
    train: Annotated[
        bool, typer.Option("--train", help="Train (or continue) the runs that are not finished.")
    ] = False,
) -> None:
    """Softmax, CosFace, ArcFace, ArcFace+, CurricularFace, closeness and diversity: our comparison.

    Further options are settings of every run (--data.path …). See docs/face_margins.md.
    """
    from arcface_plus.runs.results import VERIFICATION
    from arcface_plus.studies.tables.accuracy_tables import write_csv
    from arcface_plus.studies.tables.face_margins import (
        MEASURES,
        ROWS,
        chosen_rows,
        markdown,
        read_results,
        table_rows,
    )

    settings_need_training([*(["--rows", rows] if rows else []), *context.args], train=train)
    chosen = chosen_rows([name.strip() for name in rows.split(",") if name.strip()])
    numbers = whole_numbers(seeds)
    if train:
        train_unfinished(runs_of_rows(chosen, configs, numbers), runs, VERIFICATION, context.args)
    table = table_rows(read_results(runs, numbers))
    if not table:
        raise ValueError(
            f"{runs} holds no finished run (such as {ROWS[0].name}-seed{numbers[0]}); train them "
            "with --train, or name their folder with --runs."
        )
    output.mkdir(parents=True, exist_ok=True)
    write_csv(table, output / "face_margins.csv")
    text = "\n".join(markdown(table, measure) for measure in MEASURES)
    (output / "face_margins.md").write_text(text, encoding="utf-8")
    typer.echo(text)
    typer.echo(
        f"percent, ± deviation over seeds (± 95 % interval of the mean); written to {output}"
    )
