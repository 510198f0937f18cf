"""``arcface-plus data drop``: noise out of training data, by a run with several centres a class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcface_plus.cli.progress import counted


def drop_command(
    run: Annotated[Path, typer.Argument(help="A run folder, trained with head.centres above 1.")],
    output: Annotated[Path, typer.Argument(help="A folder for dropped.csv and train.rec.")],
    angle: Annotated[
        float, typer.Option(help="Images further from their class's dominant centre, degrees.")
    ] = 75.0,
) -> None:
    """Leave out training images that are far from the dominant centre of their class.

    The rule of sub-centre ArcFace. dropped.csv lists them; where the run was trained on records,
    train.rec has the others, to train the final model on with one centre a class.
    """
    from arcface_plus.runs.noisy_images import drop_noisy_images

    with counted("embedding") as on_progress:
        found = drop_noisy_images(run, output, angle=angle, on_progress=on_progress)
    typer.echo(
        f"{found.dropped}: {found.images - found.kept_images} of {found.images} images, and with "
        f"them all of {found.people - found.kept_people} of {found.people} people"
    )
    if found.records is not None:
        typer.echo(f"{found.records}: {found.kept_images} images of {found.kept_people} people")
