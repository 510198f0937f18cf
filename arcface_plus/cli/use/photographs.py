"""What ``compare`` and ``search`` share: photographs read and embedded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arcface_plus.cli.data.align import detector_of

if TYPE_CHECKING:
    import numpy as np

    from arcface_plus.evaluation.model_calibration import Calibration
    from arcface_plus.evaluation.photographs import Photographs
    from arcface_plus.models.embedding_model import EmbeddingModel

Card = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Thresholds and likelihood ratios of this card (verify --card) instead of those stored"
        " with the model.",
    ),
]
Model = Annotated[Path, typer.Option(help="Run folder, .safetensors, .pt or .onnx file.")]


def read_faces(
    paths: Sequence[Path], network: EmbeddingModel, align: bool, detector: str, resize: bool
) -> Photographs:
    """Return photographs as the options say; ValueError for a size the model does not take."""
    from arcface_plus.evaluation.photographs import read_photographs

    size = network.preprocessing.size
    photographs = read_photographs(paths, size, detector_of(align, detector))
    for note in photographs.notes:
        typer.echo(note, err=True)
    for image, name in zip(photographs.images, photographs.names, strict=True):
        height, width = image.shape[:2]
        if not resize and (height, width) != (size, size):
            raise ValueError(
                f"{name} is {width} x {height} pixels, but the model takes {size} x {size}: give "
                "--align to find and align the face, or --resize if it is aligned already."
            )
    return photographs


def read_calibration(model: Path, card: Path | None, network: EmbeddingModel) -> Calibration | None:
    """Return the calibration of the card, else the one stored with the model, if there is one."""
    from arcface_plus.evaluation.model_calibration import (
        calibration_file,
        load_calibration,
        load_card,
    )

    if card is not None:
        return load_card(card, network)
    return load_calibration(calibration_file(model), network)


def embed_faces(
    photographs: Photographs, network: EmbeddingModel, *, flip: bool, resize: bool
) -> np.ndarray:
    """Return the embeddings (N, D) of photographs."""
    from arcface_plus.evaluation.embedding.embed import EmbeddingOptions, embed_images

    return embed_images(network, photographs, EmbeddingOptions(flip, resize=resize))
