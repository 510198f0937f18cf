"""``arcface-plus study fig1, fig2, table3-cost``: filters, gradients and the cost of penalties."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcface_plus.cli.model_options import Device
from arcface_plus.cli.progress import counted
from arcface_plus.cli.study.runs import Output, words_of


def fig1_command(
    models: Annotated[list[Path], typer.Argument(help="Runs or weights, one a method.")],
    output: Output,
) -> None:
    """Figure 1 of the MMA paper: cosines between first-layer filters, and the count above 0.2."""
    from arcface_plus.models import load_model
    from arcface_plus.studies.filters import CLOSE, draw_cosines, first_filters, pair_cosines

    cosines = {path.name: pair_cosines(first_filters(load_model(path))) for path in models}
    if len(cosines) < len(models):
        raise ValueError("two of the models have the same name; rename one, or give it once.")
    for name, values in cosines.items():
        above = int((values > CLOSE).sum())
        typer.echo(f"{name}: {above} of {len(values)} pairs above {CLOSE}")
    _say(draw_cosines(cosines, output))


def fig2_command(output: Output) -> None:
    """Figure 2 of the MMA paper: gradient norms against the angle, closed forms and autograd."""
    from arcface_plus.studies.filters import draw_gradient_norms

    _say(draw_gradient_norms(output))


def cost_command(
    output: Output,
    model: Annotated[str, typer.Option(help="A net for 32×32 images.")] = "vgg19_bn",
    width: Annotated[int | None, typer.Option(help="Channels, where the net takes them.")] = None,
    batch: Annotated[int, typer.Option(min=2, help="Images a step.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="Measured steps of each method.")] = 5,
    methods: Annotated[str, typer.Option(help="Names separated by ';', baseline first.")] = "",
    device: Device = "auto",
) -> None:
    """Table 3 of the MMA paper: time and peak memory that each penalty adds, in one run."""
    from arcface_plus.distributed import start_world
    from arcface_plus.studies.table import write_table
    from arcface_plus.studies.tables import penalty_cost

    names = words_of(methods, ";") or list(penalty_cost.METHODS)
    if unknown := [name for name in names if name not in penalty_cost.METHODS]:
        raise ValueError(f"unknown methods {unknown}; known are {'; '.join(penalty_cost.METHODS)}.")
    with start_world(device) as world, counted("rounds") as count:
        rows = penalty_cost.measure(
            names,
            model=model,
            width=width,
            batch=batch,
            rounds=rounds,
            device=world.device,
            progress=count,
        )
    text = penalty_cost.cost_markdown(rows)
    write_table(rows, text, output, "table3_cost")
    typer.echo(text)
    typer.echo(f"{model}, batch {batch}, medians of {rounds} steps, {world.device.type}: {output}")


def _say(paths: list[Path]) -> None:
    for path in paths:
        typer.echo(str(path))
