"""``arcface-plus tammes``: points on a sphere, as far apart as we can put them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from arcface_plus.cli.errors import refuse


def tammes_command(
    dim: Annotated[int, typer.Option(help="Dimensions of the space, 2 or more.")],
    points: Annotated[int, typer.Option(help="Points on the unit sphere, 2 or more.")],
    restarts: Annotated[
        int | None, typer.Option(help="Random starts (by default enough for the size).")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop searching after that.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random starts.")] = 0,
    loss: Annotated[
        str,
        typer.Option(help="ours, or the MMA paper's SGD on mma, cosine, riesz or log."),
    ] = "ours",
    output: Annotated[Path | None, typer.Option(help="The .npy to write, (n, d) float64.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="A .png or .svg of the points (3 dimensions).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files.")] = False,
) -> None:
    """Spread points on a sphere so that the smallest angle between two is large."""
    from arcface_plus.cli.progress import counted

    _check_outputs(dim, output, picture, overwrite=overwrite)
    import numpy as np

    from arcface_plus.studies.tammes.losses import LOSSES
    from arcface_plus.studies.tammes.paper import solve_by_loss
    from arcface_plus.studies.tammes.picture import draw_points
    from arcface_plus.studies.tammes.solve import solve_with_report

    refuse(
        {
            f"--loss is '{loss}', but must be ours or one of {', '.join(LOSSES)}.": (
                loss not in ("ours", *LOSSES)
            ),
            f"--restarts and --seconds are of our search; --loss {loss} has neither.": (
                loss != "ours" and (restarts is not None or seconds is not None)
            ),
        }
    )
    with counted("search", enabled=not as_json) as progress:
        if loss == "ours":
            found = solve_with_report(
                dim, points, restarts=restarts, seconds=seconds, seed=seed, progress=progress
            )
        else:
            found = solve_by_loss(loss, dim, points, seed=seed, progress=progress)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        np.save(output, found.rows)
    if picture is not None:
        draw_points(found.rows, picture)
    degrees = math.degrees(found.certified)
    if as_json:
        facts: dict[str, object] = {"dim": dim, "points": points, "certified_degrees": degrees}
        facts |= {"method": found.method, "seed": seed}
        if loss == "ours":
            facts |= {"restarts": found.restarts, "converged": found.converged}
        typer.echo(json.dumps(facts))
        return
    typer.echo(
        f"{points} points in {dim} dimensions: every two at least {degrees:.7f}° apart "
        f"({found.method})"
    )
    for path in (output, picture):
        if path is not None:
            typer.echo(str(path))


def _check_outputs(dim: int, output: Path | None, picture: Path | None, *, overwrite: bool) -> None:
    """Refuse what could not be written, before anything is computed."""
    there = [path for path in (output, picture) if path is not None and path.exists()]
    refuse(
        {
            f"--output {output} must end in .npy.": output is not None and output.suffix != ".npy",
            f"--picture {picture} must end in .png or .svg.": (
                picture is not None and picture.suffix not in (".png", ".svg")
            ),
            f"--picture shows three dimensions, but --dim is {dim}; leave it out.": (
                picture is not None and dim != 3
            ),
            f"{', '.join(map(str, there))} exists; give --overwrite, or another name.": (
                bool(there) and not overwrite
            ),
        }
    )
