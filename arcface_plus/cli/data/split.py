"""``arcface-plus data split``: people to train on, other people to test on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def split_command(
    source: Annotated[Path, typer.Argument(help="A folder with one sub-folder a person.")],
    output: Annotated[Path, typer.Argument(help="The folder for train/ and test/.")],
    test_people: Annotated[int, typer.Option(help="People for testing; the others are trained.")],
    seed: Annotated[int, typer.Option(help="Which people; the same seed, the same ones.")] = 0,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="A person for neither part, such as one of another test set; repeat it."),
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the images instead of linking the folders.")
    ] = False,
) -> None:
    """Part a folder by people: nobody trained on is tested.

    train/ and test/ hold links to the people's folders. Train on the first (data.source folder);
    make pairs of the second with data pairs.
    """
    from arcface_plus.data.people_split import split_folder

    split = split_folder(
        source, output, test_people, seed=seed, leave_out=leave_out or [], copy=copy
    )
    typer.echo(f"{output / 'train'}: {len(split.train)} people")
    typer.echo(f"{output / 'test'}: {len(split.test)} people")
