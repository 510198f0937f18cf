"""``arcface-plus configs``: the shipped configurations, and those of others as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List and copy the shipped configurations; convert those of others.")


@app.callback(invoke_without_command=True)
def configs_command(context: typer.Context) -> None:
    """List the shipped configurations, each with the first sentence of its comment.

    A name stands wherever a configuration is asked for (arcface-plus train quickstart), and as the
    base of another. A file of that name is preferred.
    """
    if context.invoked_subcommand is None:
        from arcface_plus.shipped import headline, names

        width = max(map(len, names()))
        for name in names():
            typer.echo(f"{name:{width}}  {headline(name)}")


@app.command("copy")
def copy_command(
    name: Annotated[str, typer.Argument(help="As arcface-plus configs lists it.")],
    output: Annotated[
        Path | None, typer.Argument(help="The new file; otherwise the name here.")
    ] = None,
) -> None:
    """Copy a shipped configuration, to change it."""
    from arcface_plus.shipped import copy_config

    path = output or Path(f"{name.rpartition('/')[2]}.yaml")
    copy_config(name, path)
    typer.echo(f"{path} is a copy of {name}.")


@app.command("convert")
def convert_command(
    config: Annotated[
        Path, typer.Argument(help="A configs/NAME.py of arcface_torch, its base.py beside it.")
    ],
    output: Annotated[Path, typer.Argument(help="The YAML file to write.")],
    gpus: Annotated[
        int, typer.Option(min=1, help="On how many it ran: batch_size is of one of them.")
    ] = 8,
) -> None:
    """Turn a configuration of arcface_torch into one of ours; its file is read, never executed.

    Says on standard error what could not be carried, and what to look at. See docs/migrating.md.
    """
    from arcface_plus.runs.imports.arcface_torch import convert, write_converted

    found = convert(config, gpus)
    write_converted(found, config, output)
    for kind, lines in (("not carried", found.lost), ("look at", found.by_hand)):
        for line in lines:
            typer.echo(f"{kind}: {line}", err=True)
    typer.echo(f"{output} written; train it by arcface-plus train {output}.")
