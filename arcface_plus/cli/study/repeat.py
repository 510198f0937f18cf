"""``arcface-plus repeat``: train a configuration with several seeds and settings, and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcface_plus.cli.errors import refuse
from arcface_plus.cli.study.runs import EXPLAINED, Jobs, training, words_of


def repeat_command(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="The run to repeat, a YAML file.")],
    output: Annotated[Path, typer.Option(help="Folder for the tables, and the runs in runs/.")],
    seeds: Annotated[
        str, typer.Option(help="How many (3 is 1, 2, 3) or which (1,5,7; a single one is 7,).")
    ] = "3",
    vary: Annotated[
        list[str] | None,
        typer.Option(help="SETTING=VALUE,VALUE …; several are combined each with each."),
    ] = None,
    measures: Annotated[
        str, typer.Option(help="Of accuracy, auc, eer, tar@0.01 …, top1, top5.")
    ] = "",
    reference: Annotated[
        str, typer.Option(help="The row from which differences are taken (the first).")
    ] = "",
    jobs: Jobs = 1,
    commands: Annotated[
        bool, typer.Option("--list", help="Show the command of each unfinished run; train nothing.")
    ] = False,
    slurm: Annotated[
        Path | None, typer.Option(help="Write those commands as the script of a SLURM array.")
    ] = None,
) -> None:
    """Train CONFIG with each seed and each value, and tabulate: mean ± interval, paired test.

    Finished runs are kept and interrupted ones continue, so the same command continues a study.
    Further options are settings of every run (--train.steps 1000). See docs/repeat.md.
    """
    from arcface_plus.studies.repeats import cluster
    from arcface_plus.studies.repeats import vary as varied

    refuse({"--list and --slurm are two ways to say one thing: give one": commands and bool(slurm)})
    variations = [varied.parse_variation(text) for text in vary or []]
    wanted = varied.runs_of(config, variations, varied.seed_list(seeds))
    if commands or slurm:
        lines = cluster.commands(wanted, output / varied.RUNS, context.args)
        if slurm is None:
            typer.echo("\n".join(lines), nl=bool(lines))
            return
        slurm.write_text(cluster.slurm_script(lines), encoding="utf-8")
        typer.echo(f"{len(lines)} runs: sbatch {slurm}")
        return
    how = training(context, jobs)
    chosen = words_of(measures)
    typer.echo(varied.repeat(wanted, output, how, measures=chosen, reference=reference))
    typer.echo(f"{EXPLAINED}; written to {output}")
