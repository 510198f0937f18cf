"""``arcface-plus study table-a1, face-margins, margin-sweep, compare-margins``: losses of faces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcface_plus.cli.study.runs import (
    EXPLAINED,
    Configs,
    Jobs,
    Output,
    Runs,
    Train,
    training,
    whole_numbers,
    words_of,
)


def table_a1_command(
    context: typer.Context,
    output: Output,
    runs: Runs = Path("runs"),
    configs: Configs = Path("configs/closeness"),
    train: Train = False,
    jobs: Jobs = 1,
) -> None:
    """Table A1 of the closeness-and-diversity paper: seven pairs of weights, beside its numbers.

    Further options are settings of every run (--data.path …).
    """
    from arcface_plus.studies.tables.closeness_table import make_table

    typer.echo(make_table(runs, output, configs, training(context, jobs, train=train)))
    typer.echo(f"accuracies in percent; written to {output}")


def face_margins_command(
    context: typer.Context,
    output: Output,
    runs: Annotated[
        Path, typer.Option(help="Folder that holds the runs, or an earlier table's JSON file.")
    ] = Path("runs"),
    configs: Configs = Path("configs/faces"),
    config: Annotated[
        str, typer.Option(help="The rows' configuration; also faces1446_iresnet18.")
    ] = "celeba299_iresnet18",
    seeds: Annotated[
        str, typer.Option(help="Seeds, separated by commas (1,2,3; of a JSON file all it has).")
    ] = "",
    rows: Annotated[
        str, typer.Option(help="Train these alone, such as arcface,cosface (all if empty).")
    ] = "",
    reference: Annotated[
        str, typer.Option(help="The row from which differences are taken, such as softmax.")
    ] = "arcface",
    train: Train = False,
    jobs: Jobs = 1,
) -> None:
    """Softmax, CosFace, ArcFace, ArcFace+, CurricularFace, closeness and diversity: our comparison.

    Further options are settings of every run (--data.path …). See docs/face_margins.md.
    """
    from arcface_plus.studies.tables.face_margins import make_table

    numbers = whole_numbers(seeds) if seeds else []
    path, how = configs / f"{config}.yaml", training(context, jobs, train=train)
    typer.echo(make_table(path, runs, output, numbers, words_of(rows), reference, how))
    typer.echo(f"{EXPLAINED}; written to {output}")


def margin_sweep_command(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="The run to change, a YAML file.")],
    output: Annotated[Path, typer.Option(help="Folder for the runs, one each, and the table.")],
    series: Annotated[
        str, typer.Option(help="Of amp (m0), sphere (m1), arc (m2) and cos (m3).")
    ] = "amp,sphere,arc,cos",
    wc_relu: Annotated[
        str, typer.Option(help="As the paper has it in each series, on, off or both.")
    ] = "paper",
    commands: Annotated[
        bool, typer.Option("--list", help="Show the command of each run; train nothing.")
    ] = False,
    jobs: Jobs = 1,
) -> None:
    """Table 3 of the margin-softmax paper: train the sweep of margins m0 … m3 and make its table.

    Finished runs are kept and interrupted ones continue, so the same command continues a sweep.
    Further options are settings of every run. With --list, once those commands are done on a
    cluster, the same call without it makes the table.
    """
    from arcface_plus.studies.repeats import cluster
    from arcface_plus.studies.tables.margin_sweep import make_table, sweep_runs, wanted_runs

    runs = sweep_runs(words_of(series), wc_relu)
    if commands:
        wanted, launcher = wanted_runs(config, runs), cluster.TRAIN_ON_EIGHT_GPUS
        lines = cluster.commands(wanted, output, context.args, launcher)
    else:
        lines = [str(path) for path in make_table(config, output, runs, training(context, jobs))]
    for line in lines:
        typer.echo(line)


def compare_margins_command(
    folder: Annotated[Path, typer.Argument(help="Holds checkouts or bare clones, by name.")],
    batches: Annotated[int, typer.Option(min=1, help="Random batches of each loss.")] = 5,
    tolerance: Annotated[float, typer.Option(help="Largest relative difference.")] = 1e-5,
) -> None:
    """Compare our margin losses with the published modules, which are EXECUTED: look first.

    Exits with 1 where a loss differs by more than the tolerance, or where there is nothing to
    compare.
    """
    from arcface_plus.studies.tables.compare_margins import compare

    wrong = compare(folder, batches, tolerance, show=typer.echo)
    for line in wrong:
        typer.echo(line, err=True)
    if wrong:
        raise typer.Exit(1)
