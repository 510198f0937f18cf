"""``arcface-plus study NAME``: the papers' tables and figures, each into a folder."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Reproduce a table or figure of the papers into a folder.", no_args_is_help=True
)
