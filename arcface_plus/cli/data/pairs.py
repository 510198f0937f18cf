"""The verb of ``arcface-plus data`` that makes pair sets: pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pairs_command(
    source: Annotated[
        Path, typer.Argument(help="A folder PERSON/IMAGE, or a list with such a path a line.")
    ],
    output: Annotated[Path, typer.Argument(help="A folder for pairs.txt and pairs.bin.")],
    root: Annotated[
        Path | None, typer.Option(help="Image folder of a list (its own folder if absent).")
    ] = None,
    folds: Annotated[int, typer.Option(min=1, help="Folds; nobody is in two.")] = 10,
    pairs_per_fold: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Genuine pairs in a fold, and as many impostor pairs (300, or what there is).",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same images and seed give the same pairs.")] = 0,
    exclude: Annotated[
        Path | None,
        typer.Option(
            help="Leave out the people of this training set: a folder, or a .rec with its .lst."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="What the files are called.")] = "pairs",
    list_only: Annotated[
        bool, typer.Option("--list-only", help="Write the list alone, without reading images.")
    ] = False,
    size: Annotated[int, typer.Option(min=1, help="Side of the .bin's images, in pixels.")] = 112,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Its JPEG quality.")] = 95,
    resize: Annotated[
        bool, typer.Option("--resize", help="Scale images of another size instead of refusing.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Make balanced verification pairs of people who are in one fold only.

    Writes NAME.txt (LFW's form, or lines of paths where file names do not allow it) and NAME.bin
    (insightface's form), which verify and other evaluators read.
    """
    from arcface_plus.cli.progress import counted
    from arcface_plus.data.pairs.building import build_pairs, folder_images, listed_images
    from arcface_plus.data.pairs.people import people_of, shared_people
    from arcface_plus.data.pairs.writing import write_pair_bin, write_pair_list

    listing, packed = output / f"{name}.txt", output / f"{name}.bin"
    wanted = [listing] if list_only else [listing, packed]
    if there := [str(path) for path in wanted if path.exists() and not overwrite]:
        raise ValueError(f"{there[0]} exists; choose another place or --name, or --overwrite.")
    folder = source if source.is_dir() else root or source.parent
    images = folder_images(source) if source.is_dir() else listed_images(source, folder)
    if exclude is not None:
        known = set(shared_people(people_of(exclude), images))
        images = {person: files for person, files in images.items() if person not in known}
        typer.echo(f"left out {len(known)} people of {exclude}", err=True)
    built = build_pairs(images, folds=folds, pairs_per_fold=pairs_per_fold, seed=seed)
    output.mkdir(parents=True, exist_ok=True)
    form = write_pair_list(listing, built, folder)
    people = len({person for pair in built.pairs for person, _ in pair})
    typer.echo(
        f"{listing}: {len(built.pairs)} pairs of {people} people in {folds} folds "
        f"({'LFW form' if form == 'lfw' else 'lines of paths: give verify --folds'}); "
        f"images in {folder}"
    )
    if not list_only:
        with counted("packing") as progress:
            write_pair_bin(
                packed,
                built,
                folder,
                size=size,
                quality=quality,
                resize=resize,
                progress=progress,
            )
        typer.echo(f"{packed}: the same pairs, {size}×{size}")
