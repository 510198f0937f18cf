"""``arcface-plus index``: change a file of embeddings that is searched in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Change a file of embeddings that is searched in.", no_args_is_help=True)


@app.command("remove")
def remove_command(
    person: Annotated[str, typer.Argument(help="The folder of the person's keys, or the label.")],
    index: Annotated[Path, typer.Option(help="A file that embed wrote: .npz, .npy or .parquet.")],
) -> None:
    """Remove a person's rows from an index; the file is written anew and renamed."""
    from arcface_plus.export.index import remove_person

    removed, left = remove_person(index, person)
    typer.echo(f"removed {removed} rows of {person} from {index}; {left} rows are left")
