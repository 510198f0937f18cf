"""The verbs of ``arcface-plus data`` that say what is wrong: check, overlap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arcface_plus.cli.progress import counted

if TYPE_CHECKING:
    from arcface_plus.data.pairs.overlap import Overlap

_SHOWN = 10
Root = Annotated[
    Path | None, typer.Option(help="Image folder of a list of pairs (its own folder if absent).")
]


def check_command(
    data: Annotated[
        Path,
        typer.Argument(help="A .rec file, the folder of a train.rec, or a folder PERSON/IMAGE."),
    ],
    pairs: Annotated[
        list[Path] | None,
        typer.Option(help="A pair set that must share nobody and nothing with DATA; repeat it."),
    ] = None,
    root: Root = None,
    num_classes: Annotated[
        int | None, typer.Option(min=1, help="The number of people a run expects, of a .rec.")
    ] = None,
    decode: Annotated[
        str,
        typer.Option(help="Of a .rec: 'all' images, a 'sample' of 256, or 'headers' alone."),
    ] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Check counts, labels, every image, exact copies, and overlap with pair sets.

    Exit 0: no error; 1: errors were found; 2: this is no such data.
    """
    from dataclasses import asdict

    from arcface_plus.cli.errors import refuse
    from arcface_plus.data.folder_check import check_folder
    from arcface_plus.data.pairs.overlap import overlap_problems
    from arcface_plus.data.records.check import check_record_file

    records = data.suffix == ".rec" or (data / "train.rec").is_file()
    folder_only = {
        "--num-classes is for records: a folder has as many people as folders.": num_classes
        is not None,
        "--decode is for records: of a folder every image is decoded.": decode != "all",
    }
    refuse({reason: given and not records for reason, given in folder_only.items()})
    with counted("decoding") as on_progress:
        if records:
            checked = check_record_file(data, num_classes, decode=decode, on_progress=on_progress)
        else:
            checked = check_folder(data, on_progress)
    problems = list(checked.problems)
    for each in pairs or []:
        with counted("comparing") as on_progress:
            problems += overlap_problems(data, each, root, progress=on_progress)
    errors = sum(problem.count for problem in problems if problem.severity == "error")
    if as_json:
        typer.echo(json.dumps([asdict(problem) for problem in problems], indent=2))
    else:
        for problem in problems:
            typer.echo(f"{problem.severity}: {problem}")
        warnings = sum(problem.count for problem in problems) - errors
        typer.echo(
            f"{data}: {checked.images} images of {checked.people} people, "
            f"{errors} errors, {warnings} warnings"
        )
    if errors:
        raise typer.Exit(1)


def overlap_command(
    training: Annotated[
        Path, typer.Argument(help="A folder PERSON/IMAGE, or a .rec; names are in its .lst.")
    ],
    pairs: Annotated[Path, typer.Argument(help="A pair set: a list or a .bin.")],
    root: Root = None,
) -> None:
    """Name the people and images of a pair set that a training set has too; exit 1 for any."""
    from arcface_plus.data.pairs.overlap import find_overlap

    with counted("reading") as on_progress:
        found = find_overlap(training, pairs, root, progress=on_progress)
    _show(found, training, pairs)
    if found:
        raise typer.Exit(1)


def _show(found: Overlap, training: Path, pairs: Path) -> None:
    shared = [f"{theirs} is {ours}" for theirs, ours in found.images or []]
    for lines in (found.people or [], shared):
        for line in lines[:_SHOWN]:
            typer.echo(line)
        if len(lines) > _SHOWN:
            typer.echo(f"… and {len(lines) - _SHOWN} more")
    if found.people is not None:
        typer.echo(
            f"{len(found.people)} of the {found.tested} people of {pairs} are in {training}, "
            "by name"
        )
    if found.images is not None:
        typer.echo(
            f"{len(shared)} of the {found.compared} images of {pairs} are in {training}, "
            "byte for byte"
        )
    for reason in found.skipped:
        typer.echo(reason, err=True)
