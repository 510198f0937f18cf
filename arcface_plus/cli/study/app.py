"""``arcface-plus study NAME``: the papers' tables and figures, each into a folder."""

from __future__ import annotations

import typer

from arcface_plus.cli.study import (
    accuracy as study_accuracy,
)
from arcface_plus.cli.study import (
    closeness as study_closeness,
)
from arcface_plus.cli.study import (
    distribution as study_distribution,
)
from arcface_plus.cli.study import (
    faces as study_faces,
)
from arcface_plus.cli.study import (
    filters as study_filters,
)
from arcface_plus.cli.study import (
    tammes as study_tammes,
)
from arcface_plus.cli.study import (
    theory as study_theory,
)
from arcface_plus.cli.study.runs import TAKES_SETTINGS

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
