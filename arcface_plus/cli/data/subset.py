"""The verb ``arcface-plus data subset``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def subset_command(
    source: Annotated[Path, typer.Argument(help="A .rec file, or the folder of a train.rec.")],
    output: Annotated[
        Path, typer.Argument(help="A .rec file to write, or a folder for train.rec.")
    ],
    identities: Annotated[int, typer.Option(min=1, help="How many people to keep.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed keeps the same people.")] = 0,
    min_images: Annotated[
        int, typer.Option(min=1, help="Draw from people with at least so many images.")
    ] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Keep all images of some people, drawn at random, their bytes unchanged.

    Labels are counted anew from 0; NAME.classes.csv beside the records names the old ones.
    """
    from arcface_plus.cli.progress import counted
    from arcface_plus.data.records.reader import RecordReader
    from arcface_plus.data.records.subset import cut_subset

    with RecordReader(source) as reader, counted("cutting") as on_progress:
        summary = cut_subset(
            reader,
            output,
            identities,
            seed=seed,
            min_images=min_images,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    typer.echo(
        f"{summary.path}: {summary.images} images of {summary.identities} people; "
        f"old labels in {summary.mapping}"
    )
