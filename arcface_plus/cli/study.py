"""``arcface-plus study NAME``: the papers' tables and figures, each into a folder."""

from __future__ import annotations

import typer

from arcface_plus.cli import (
    study_accuracy,
    study_closeness,
    study_distribution,
    study_faces,
    study_filters,
    study_tammes,
    study_theory,
)
from arcface_plus.cli.study_runs import TAKES_SETTINGS

app = typer.Typer(
    help="Reproduce a table or figure of the papers into a folder.", no_args_is_help=True
)
study_accuracy.register(app)
study_filters.register(app)
app.command("table1")(study_tammes.table1_command)
app.command("distribution")(study_distribution.distribution_command)
app.command("theory")(study_theory.theory_command)
app.command("table-a1", context_settings=TAKES_SETTINGS)(study_closeness.table_a1_command)
app.command("face-margins", context_settings=TAKES_SETTINGS)(study_faces.face_margins_command)
