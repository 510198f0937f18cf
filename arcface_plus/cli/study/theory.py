"""``arcface-plus study theory``: the theory of uniform prototypes, figure by figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def theory_command(
    output: Annotated[Path, typer.Option(help="Folder for the figures, SVG and PNG.")],
    more_figures: Annotated[
        list[str] | None,
        typer.Argument(metavar="FIGURES", help="Further figures, after the first --only."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Figures to draw: fig7 … fig18, figA2. Several may follow."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is sampled.")] = 0,
) -> None:
    """Draw Figs. 7-18 of the margin-softmax appendix and Fig. A2 of the closeness paper.

    Several figures may follow one --only: study theory --output F --only fig7 fig9. The numbers
    behind them go to theory.json. What was reconstructed is named in docs/uniform_prototypes.md.
    """
    from arcface_plus.cli.json_files import write_json
    from arcface_plus.cli.progress import counted
    from arcface_plus.studies.theory.figures import check_names, draw_theory

    if more_figures and not only:
        raise ValueError(f"figures are named by --only: --only {' '.join(more_figures)}")
    names = check_names([*(only or []), *(more_figures or [])])
    output.mkdir(parents=True, exist_ok=True)
    with counted("figures") as progress:
        numbers = draw_theory(output, names, seed=seed, progress=progress)
    write_json(output / "theory.json", {"seed": seed, **numbers})
    typer.echo(f"wrote {len(names)} figures and theory.json to {output}")
