"""The verbs of ``arcface-plus data``: records and folders of faces, pair sets, parts of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arcface_plus.cli.data.align import Align, Detector, align_command, detector_of
from arcface_plus.cli.data.check import check_command, overlap_command
from arcface_plus.cli.data.clean import clean_command
from arcface_plus.cli.data.drop import drop_command
from arcface_plus.cli.data.pairs import pairs_command
from arcface_plus.cli.progress import counted

if TYPE_CHECKING:
    from arcface_plus.data.records.reader import RecordReader

app = typer.Typer(
    help="Pack, unpack, inspect, check and cut training data; make pairs.", no_args_is_help=True
)
app.command("align")(align_command)
app.command("check")(check_command)
app.command("clean")(clean_command)
app.command("drop")(drop_command)
app.command("pairs")(pairs_command)
app.command("overlap")(overlap_command)

Records = Annotated[Path, typer.Argument(help="A .rec file, or the folder of a train.rec.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


@app.command()
def pack(
    source: Annotated[Path, typer.Argument(help="A folder with one sub-folder a person.")],
    output: Annotated[
        Path, typer.Argument(help="A .rec file to write, or a folder for train.rec.")
    ],
    size: Annotated[int, typer.Option(min=1, help="Side of the stored images, in pixels.")] = 112,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality.")] = 95,
    resize: Annotated[
        bool, typer.Option("--resize", help="Scale images of another size instead of refusing.")
    ] = False,
    align: Align = False,
    detector: Detector = "mtcnn",
    reencode: Annotated[
        bool, typer.Option("--reencode", help="Encode JPEGs anew even where they fit as they are.")
    ] = False,
    on_error: Annotated[
        str, typer.Option(help="What a bad image does: 'stop', or 'skip' it and say so.")
    ] = "stop",
    threads: Annotated[int, typer.Option(min=1, help="Images encoded at the same time.")] = 4,
    overwrite: Overwrite = False,
) -> None:
    """Pack a folder of aligned faces, or with --align of photographs, into train.rec.

    Also written: train.idx, property and train.lst.
    """
    from arcface_plus.data.records.packing import pack_folder

    faces = detector_of(align, detector)
    with counted("packing") as on_progress:
        summary = pack_folder(
            source,
            output,
            size=size,
            quality=quality,
            resize=resize,
            detector=faces,
            reencode=reencode,
            on_error=on_error,
            overwrite=overwrite,
            threads=threads,
            on_progress=on_progress,
        )
    for message in summary.rejected:
        typer.echo(f"left out: {message}", err=True)
    typer.echo(
        f"{summary.path}: {summary.images} images of {summary.people} people "
        f"({summary.kept} with their own bytes, {len(summary.rejected)} left out)"
    )


@app.command()
def unpack(
    records: Records,
    output: Annotated[Path, typer.Argument(help="The folder to fill: <label>/<key>.jpg.")],
    overwrite: Overwrite = False,
) -> None:
    """Write every image of a record file, bytes unchanged, into one sub-folder a person."""
    from arcface_plus.data.records.packing import unpack_records
    from arcface_plus.data.records.reader import RecordReader

    with RecordReader(records) as reader, counted("unpacking") as on_progress:
        count = unpack_records(reader, output, overwrite=overwrite, on_progress=on_progress)
    typer.echo(f"{output}: {count} images")


@app.command()
def inspect(
    records: Records,
    first: Annotated[int, typer.Option(min=0, help="How many records to show.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show the counts, images per person and first records of a record file."""
    from arcface_plus.data.records.reader import RecordReader

    with RecordReader(records) as reader:
        facts = _describe(reader, first)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    shown = facts.pop("first_records")
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' '):<18} {_as_text(value)}")
    if shown:
        typer.echo("\n     key  label     bytes  format  size")
    for row in shown:
        label = f"{row['label']:g}" if isinstance(row["label"], float) else str(row["label"])
        typer.echo(f"{row['key']:>8}  {label:>5}  {row['bytes']:>8}  {row['image']}")


@app.command()
def split(
    source: Annotated[Path, typer.Argument(help="A folder with one sub-folder a person.")],
    output: Annotated[Path, typer.Argument(help="The folder for train/ and test/.")],
    test_people: Annotated[int, typer.Option(help="People for testing; the others are trained.")],
    seed: Annotated[int, typer.Option(help="Which people; the same seed, the same ones.")] = 0,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="A person for neither part, such as one of another test set; repeat it."),
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the images instead of linking the folders.")
    ] = False,
) -> None:
    """Divide a folder by people: nobody trained on is tested.

    train/ and test/ hold links to the people's folders. Train on the first (data.source folder);
    make pairs of the second with data pairs.
    """
    from arcface_plus.data.people_split import split_folder

    parts = split_folder(
        source, output, test_people, seed=seed, leave_out=leave_out or [], copy=copy
    )
    typer.echo(f"{output / 'train'}: {len(parts.train)} people")
    typer.echo(f"{output / 'test'}: {len(parts.test)} people")


@app.command()
def subset(
    source: Records,
    output: Annotated[
        Path, typer.Argument(help="A .rec file to write, or a folder for train.rec.")
    ],
    identities: Annotated[int, typer.Option(min=1, help="How many people to keep.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed keeps the same people.")] = 0,
    min_images: Annotated[
        int, typer.Option(min=1, help="Draw from people with at least so many images.")
    ] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Keep all images of some people, drawn at random, their bytes unchanged.

    Labels are counted anew from 0; NAME.classes.csv beside the records names the old ones.
    """
    from arcface_plus.data.records.reader import RecordReader
    from arcface_plus.data.records.subset import cut_subset

    with RecordReader(source) as reader, counted("cutting") as on_progress:
        summary = cut_subset(
            reader,
            output,
            identities,
            seed=seed,
            min_images=min_images,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    typer.echo(
        f"{summary.path}: {summary.images} images of {summary.identities} people; "
        f"old labels in {summary.mapping}"
    )


def _describe(reader: RecordReader, first: int) -> dict[str, Any]:
    """Return what `inspect` shows, as plain JSON types."""
    import numpy as np

    from arcface_plus.data.image_headers import image_format, image_size

    _, per_person = np.unique(reader.labels, return_counts=True)
    shown: list[dict[str, Any]] = []
    for position in range(min(first, len(reader))):
        record = reader[position]
        try:
            height, width = image_size(record.data)
            image = f"{image_format(record.data)}  {width}×{height}"
        except ValueError as error:
            image = str(error)
        label = np.asarray(record.label).tolist()
        shown.append({"key": record.key, "label": label, "bytes": len(record.data), "image": image})
    statistics = {
        name: float(getattr(np, name)(per_person)) if len(per_person) else 0.0
        for name in ("min", "median", "mean", "max")
    }
    return {
        "file": str(reader.path),
        "layout": "plain" if reader.identity_ranges is None else "insightface (header-0)",
        "images": len(reader),
        "people": len(per_person),
        "classes": reader.num_classes,
        "property": None if reader.property is None else reader.property._asdict(),
        "images_per_person": statistics,
        "first_records": shown,
    }


def _as_text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:g}" for name, number in value.items())
    return "none" if value is None else str(value)
