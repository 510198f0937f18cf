"""``arcface-plus study NAME``: the papers' tables and figures, each into a folder."""

from __future__ import annotations

import typer

from arcface_plus.cli.study import accuracy, distribution, faces, filters, tammes, theory

app = typer.Typer(
    help="Reproduce a table or figure of the papers into a folder.", no_args_is_help=True
)
accuracy.register(app)
filters.register(app)
app.command("table1")(tammes.table1_command)
app.command("distribution")(distribution.distribution_command)
app.command("theory")(theory.theory_command)
faces.register(app)
