"""``arcface-plus study table1``: the Tammes problem by four losses and by our solver."""

from __future__ import annotations

from typing import Annotated

import typer

from arcface_plus.cli.progress import counted
from arcface_plus.cli.study.runs import Output, words_of


def table1_command(
    output: Output,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each loss, seeds 0, 1, …")] = 20,
    rows: Annotated[str, typer.Option(help="all, or such as 3x30,4x600.")] = "all",
    losses: Annotated[
        str, typer.Option(help="Of mma,cosine,riesz,log; none leaves the solver.")
    ] = "mma,cosine,riesz,log",
    iterations: Annotated[int, typer.Option(min=1, help="Of SGD; the paper's is 10 000.")] = 10_000,
    solve: Annotated[bool, typer.Option("--solve/--no-solve", help="Run our solver.")] = True,
) -> None:
    """Table 1 of the MMA paper: smallest angles of points spread by its protocol, and by ours."""
    from arcface_plus.studies.tammes.losses import LOSSES
    from arcface_plus.studies.tammes.table import choose_rows, measure_row, save

    chosen = choose_rows(rows)
    names = [] if losses == "none" else words_of(losses)
    if unknown := [name for name in names if name not in LOSSES]:
        raise ValueError(f"unknown losses {unknown}; known are {', '.join(LOSSES)}, or none.")
    if not names and not solve:
        raise ValueError("--losses none --no-solve leaves nothing to measure.")
    results = []
    for row in chosen:
        with counted(f"{row.points} points, {row.dim} dimensions") as progress:
            results.append(
                measure_row(
                    row,
                    seeds=range(seeds),
                    losses=names,
                    iterations=iterations,
                    solve=solve,
                    progress=progress,
                )
            )
        text = save(results, output)  # after every row: what is done is kept
    typer.echo(text)
    typer.echo(f"degrees; a loss: paper / best of {seeds} seeds / median; written to {output}")
