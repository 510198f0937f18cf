"""``arcface-plus embed``: export the embeddings of a folder, a record file or a pair set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcface_plus.cli.data.align import Align, Detector, detector_of
from arcface_plus.cli.model_options import (
    BatchSize,
    Device,
    Flip,
    Precision,
    Preprocessing,
    Resize,
    embedding_options,
    parse_preprocessing,
)
from arcface_plus.cli.progress import counted


def embed_command(
    model: Annotated[Path, typer.Option(help="Run folder, .safetensors, .pt or .onnx file.")],
    source: Annotated[
        Path, typer.Option("--input", help="A folder of images, a .rec, a .bin or a pairs.txt.")
    ],
    output: Annotated[Path, typer.Option(help="The .npz or .parquet to write.")],
    root: Annotated[Path | None, typer.Option(help="Image folder of a pairs.txt.")] = None,
    flip: Flip = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    precision: Precision = "fp32",
    resize: Resize = False,
    align: Align = False,
    detector: Detector = "mtcnn",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="List unreadable images instead of stopping.")
    ] = False,
    preprocessing: Preprocessing = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted export.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
) -> None:
    """Write key, label, norm and embedding of every image, in a defined order.

    Also under torchrun as tools/export_embeddings.py; all ranks must see the same files.
    """
    from arcface_plus.data.collections import open_collection
    from arcface_plus.distributed import start_world
    from arcface_plus.export.embeddings import check_output, export_embeddings
    from arcface_plus.models import load_model

    check_output(output, overwrite=overwrite)
    faces = detector_of(align, detector)
    collection = open_collection(source, root)
    network = load_model(model, preprocessing=parse_preprocessing(preprocessing))
    if faces is not None:
        collection = collection.aligned(faces, network.preprocessing.size)
    with start_world(device) as world, counted(source.name, enabled=world.is_main) as progress:
        skipped = export_embeddings(
            network,
            collection,
            output,
            world,
            embedding_options(network, flip, batch_size, world.device, precision, resize),
            skip_bad=skip_bad,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
        )
        if world.is_main:
            rows = len(collection.keys) - len(skipped)
            typer.echo(f"wrote {rows} embeddings to {output}")
            if skipped:
                typer.echo(
                    f"left out {len(skipped)} unreadable images, listed in {output}.skipped.txt"
                )
