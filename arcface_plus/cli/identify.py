"""``arcface-plus identify``: 1:N identification of exported embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from arcface_plus.cli.errors import refuse
from arcface_plus.cli.json_files import write_json

if TYPE_CHECKING:
    from arcface_plus.evaluation.search.distractors import DistractorResult
    from arcface_plus.evaluation.search.identification import IdentificationResult

RANKS = (1, 5, 10, 20)


def identify_command(
    probes: Annotated[Path, typer.Option(help="An .npz by arcface-plus embed: who is looked for.")],
    gallery: Annotated[
        Path | None,
        typer.Option(
            help="An .npz of known people. Without it, each probe looks for the others of "
            "its person among the distractors, one at a time (MegaFace)."
        ),
    ] = None,
    distractors: Annotated[
        Path | None, typer.Option(help="An .npz of strangers; they are nobody's mate.")
    ] = None,
    identity: Annotated[
        str,
        typer.Option(
            help="Who a row shows: folder (of PERSON/IMAGE.jpg), label (the stored number)"
            " or prefix (of TinyFace's PERSON_IMAGE.jpg)."
        ),
    ] = "folder",
    rank: Annotated[
        list[int] | None, typer.Option(help="A k of rank-k; may be repeated (1, 5, 10 and 20).")
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write every number to this file.")
    ] = None,
) -> None:
    """Search people: rank-k and TPIR@FPIR in a gallery, or rank-1 and TAR@FAR among distractors."""
    from arcface_plus.evaluation.embedding.sets import read_embedding_set
    from arcface_plus.evaluation.search.distractors import identify_among_distractors
    from arcface_plus.evaluation.search.identification import identify

    refuse(
        {
            "Give --gallery, --distractors or both to search in.": (
                gallery is None and distractors is None
            ),
            "--rank is for a --gallery; among distractors alone rank-1 is stated.": (
                gallery is None and bool(rank)
            ),
        }
    )
    paths = {"probes": probes, "gallery": gallery, "distractors": distractors}
    given = {name: path for name, path in paths.items() if path is not None}
    sets = {name: read_embedding_set(path) for name, path in given.items()}
    probes_set = sets["probes"]
    people = probes_set.people(identity)
    result: IdentificationResult | DistractorResult
    if gallery is not None:
        result = identify(
            probes_set.embeddings,
            people,
            sets["gallery"].embeddings,
            sets["gallery"].people(identity),
            distractors=sets["distractors"].embeddings if distractors else None,
            ranks=rank or RANKS,
            describe_probe=probes_set.describe,
            describe_gallery=sets["gallery"].describe,
            describe_distractor=sets["distractors"].describe if distractors else str,
        )
        table = gallery_table(result)
    else:
        result = identify_among_distractors(
            probes_set.embeddings,
            people,
            sets["distractors"].embeddings,
            describe_probe=probes_set.describe,
            describe_distractor=sets["distractors"].describe,
        )
        table = distractor_table(result)
    console = Console()
    console.print(table)
    if json_path is not None:
        facts = {name: str(path) for name, path in given.items()}
        write_json(json_path, {"sets": facts, "identity": identity, **result.to_dict()})
        console.print(f"Wrote {json_path}")


def gallery_table(result: IdentificationResult) -> Table:
    """Lay out rank-k and TPIR@FPIR."""
    strangers = f" + {result.distractors} distractors" if result.distractors else ""
    table = Table(
        "measure",
        "value",
        title=f"1:N: {result.mated} mated, {result.non_mated} non-mated probes in a gallery of "
        f"{result.gallery}{strangers}",
        title_justify="left",
    )
    for rank, rate in result.rank_rates.items():
        table.add_row(f"rank-{rank}", f"{rate:.5f}")
    _add_rates(
        table,
        ("TPIR@FPIR", "false positives", "non-mated probes"),
        result.tpir,
        result.coarse_fpirs,
        result.refused_fpirs,
    )
    return table


def distractor_table(result: DistractorResult) -> Table:
    """Lay out rank-1 and TAR@FAR among distractors."""
    table = Table(
        "measure",
        "value",
        title=f"{result.searches} searches of {result.people} people ({result.probes} probes) "
        f"among {result.distractors} distractors",
        title_justify="left",
    )
    table.add_row("rank-1", f"{result.rank1:.5f}")
    _add_rates(
        table,
        ("TAR@FAR", "false accepts", "impostor pairs"),
        result.tar_at_far,
        result.coarse_fars,
        result.refused_fars,
    )
    if result.left_out:
        table.add_row("left out", f"{result.left_out} probes alone of their person")
    return table


def _add_rates(
    table: Table,
    words: tuple[str, str, str],
    rates: dict[float, float],
    coarse: tuple[float, ...],
    refused: dict[float, int],
) -> None:
    """Add a row a target; ``words``: the measure, what is counted, what a refused target needs."""
    measure, errors, needs = words
    for target, rate in rates.items():
        note = f" (coarse: fewer than 10 {errors})" if target in coarse else ""
        table.add_row(f"{measure}={target:g}", f"{rate:.5f}{note}")
    for target, needed in refused.items():
        table.add_row(f"{measure}={target:g}", f"refused: needs {needed} {needs}")
