"""``arcface-plus study NAME``: the papers' tables and figures, each into a folder."""

from __future__ import annotations

import typer

from arcface_plus.cli.study import accuracy, distribution, faces, filters, tammes, theory
from arcface_plus.cli.study.runs import TAKES_SETTINGS

app = typer.Typer(
    help="Reproduce a table or figure of the papers into a folder.", no_args_is_help=True
)
accuracy.register(app)
app.command("fig1")(filters.fig1_command)
app.command("fig2")(filters.fig2_command)
app.command("table3-cost")(filters.cost_command)
app.command("table1")(tammes.table1_command)
app.command("distribution")(distribution.distribution_command)
app.command("theory")(theory.theory_command)
app.command("table-a1", context_settings=TAKES_SETTINGS)(faces.table_a1_command)
app.command("face-margins", context_settings=TAKES_SETTINGS)(faces.face_margins_command)
app.command("margin-sweep", context_settings=TAKES_SETTINGS)(faces.margin_sweep_command)
app.command("compare-margins")(faces.compare_margins_command)
