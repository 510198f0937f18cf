"""``arcface-plus data align``, and the option of other verbs that align photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from arcface_plus.data.faces.face import FaceDetector

Align = Annotated[
    bool,
    typer.Option("--align", help="The images are photographs: find the face, cut it out first."),
]
Detector = Annotated[
    str, typer.Option(help="mtcnn, or a YuNet or SCRFD file (.onnx); for photographs.")
]


def detector_of(align: bool, detector: str) -> FaceDetector | None:
    """Return the detector that ``--align`` and ``--detector`` ask for, if any."""
    from arcface_plus.data.faces.detectors import DEFAULT, open_detector

    if not align and detector != DEFAULT:
        raise ValueError(f"--detector {detector} does nothing without --align; give both")
    return open_detector(detector) if align else None


def align_command(
    folder: Annotated[Path, typer.Argument(help="Photographs: FOLDER/PERSON/NAME.jpg.")],
    output: Annotated[Path, typer.Argument(help="A folder for the crops: OUT/PERSON/NAME.jpg.")],
    detector: Detector = "mtcnn",
    size: Annotated[int, typer.Option(min=1, help="Side of a crop, in pixels.")] = 112,
    min_face: Annotated[
        float,
        typer.Option(min=0, help="Leave out faces whose shorter side is below, in pixels."),
    ] = 40,
    image_format: Annotated[
        str, typer.Option("--format", help="jpg, or png, which loses nothing.")
    ] = "jpg",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the crops that are there and start over.")
    ] = False,
) -> None:
    """Cut the face out of every photograph, at the size and place that networks expect.

    Run it again to continue, or to add photographs: what was done is not done again. Also written:
    alignment.html (all crops at a glance), failures.txt and alignment.csv.
    """
    from arcface_plus.cli.progress import counted
    from arcface_plus.data.faces.folder import FAILURES, SHEET, align_folder

    with counted("aligning") as on_progress:
        aligned = align_folder(
            folder,
            output,
            detector,
            size=size,
            min_face=min_face,
            image_format=image_format,
            workers=workers,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    counts = ", ".join(f"{count} {status}" for status, count in aligned.counts.items())
    typer.echo(
        f"{output}: {len(aligned.outcomes)} photographs, {aligned.before} done before: {counts}"
    )
    typer.echo(f"look at {output / SHEET}; what to check is listed in {output / FAILURES}")
