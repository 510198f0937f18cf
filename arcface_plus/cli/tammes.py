"""``arcface-plus tammes``: points on a sphere, as far apart as we can put them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer


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
    from arcface_plus.studies.tammes.losses import LOSSES

    if loss != "ours" and loss not in LOSSES:
        raise ValueError(f"--loss is '{loss}', but must be ours or one of {', '.join(LOSSES)}.")
    if loss != "ours" and (restarts is not None or seconds is not None):
        raise ValueError(f"--restarts and --seconds are of our search; --loss {loss} has neither.")
    with counted("search", enabled=not as_json) as progress:
        rows, found = _solve(dim, points, restarts, seconds, seed, loss, progress)
    if output is not None:
        import numpy as np

        output.parent.mkdir(parents=True, exist_ok=True)
        np.save(output, rows)
    if picture is not None:
        from arcface_plus.studies.tammes.picture import draw_points

        draw_points(rows, picture)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(
        f"{points} points in {dim} dimensions: every two at least "
        f"{found['certified_degrees']:.7f}° apart ({found['method']})"
    )
    for path in (output, picture):
        if path is not None:
            typer.echo(str(path))


def _solve(dim, points, restarts, seconds, seed, loss, progress):  # type: ignore[no-untyped-def]
    from arcface_plus.studies.tammes.angles import certified_angle
    from arcface_plus.studies.tammes.solve import (
        check_sizes,
        solve_with_report,
    )

    if loss == "ours":
        solution = solve_with_report(
            dim, points, restarts=restarts, seconds=seconds, seed=seed, progress=progress
        )
        rows, angle, method = solution.rows, solution.certified, solution.method
        more = {"restarts": solution.restarts, "converged": solution.converged}
    else:
        from arcface_plus.studies.tammes.paper import run_protocol

        check_sizes(dim, points, seed)
        rows = run_protocol(loss, dim, points, [seed], progress=progress).rows[0]
        angle, method, more = certified_angle(rows), f"SGD on {loss}", {}
    found = {"dim": dim, "points": points, "certified_degrees": math.degrees(angle)}
    return rows, found | {"method": method, "seed": seed} | more


def _check_outputs(dim: int, output: Path | None, picture: Path | None, *, overwrite: bool) -> None:
    """Refuse what could not be written, before anything is computed."""
    if output is not None and output.suffix != ".npy":
        raise ValueError(f"--output {output} must end in .npy.")
    if picture is not None and picture.suffix not in (".png", ".svg"):
        raise ValueError(f"--picture {picture} must end in .png or .svg.")
    if picture is not None and dim != 3:
        raise ValueError(f"--picture shows three dimensions, but --dim is {dim}; leave it out.")
    for path in (output, picture):
        if path is not None and path.exists() and not overwrite:
            raise ValueError(f"{path} exists; give --overwrite, or another name.")
