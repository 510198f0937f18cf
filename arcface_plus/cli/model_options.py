"""Options of every command that embeds images: how a model is read and run."""

from __future__ import annotations

from typing import Annotated

import typer

Flip = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", help="Sum f(x) + f(mirrored x) (as the model states)."),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images embedded at once.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or fp16.")]
Resize = Annotated[bool, typer.Option(help="Scale images of another size.")]
Preprocessing = Annotated[
    str | None, typer.Option(help="For files that do not state it: insightface, or JSON.")
]
