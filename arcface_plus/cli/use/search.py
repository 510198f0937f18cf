"""``arcface-plus search``: whose photographs in an index look most like this one?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from arcface_plus.cli.data.align import Align, Detector
from arcface_plus.cli.model_options import Preprocessing, Resize, parse_preprocessing
from arcface_plus.cli.use.photographs import Card, Model, embed_faces, read_calibration, read_faces


def search_command(
    index: Annotated[Path, typer.Option(help="A file that embed wrote: .npz, .npy or .parquet.")],
    query: Annotated[
        list[Path], typer.Option(help="A photograph to search for; may be given several times.")
    ],
    model: Model,
    top: Annotated[int, typer.Option(min=1, help="How many rows to show for each query.")] = 5,
    align: Align = False,
    detector: Detector = "mtcnn",
    resize: Resize = False,
    card: Card = None,
    preprocessing: Preprocessing = None,
) -> None:
    """Show the rows of an index that are nearest to a photograph: key, person, cosine.

    The search is exact, by faiss where the extra search is installed, else by NumPy; both give the
    same rows. Likelihood ratios are shown where verify --calibrate stored them with the model,
    or in a --card.
    """
    from arcface_plus.evaluation.embedding.sets import read_embedding_set
    from arcface_plus.evaluation.search.nearest import find_faiss, nearest_rows
    from arcface_plus.models import load_model
    from arcface_plus.models.weight_files import weights_path

    weights_path(model)
    held = read_embedding_set(index)
    network = load_model(model, preprocessing=parse_preprocessing(preprocessing))
    origin = held.check_made_by(network)
    calibration = read_calibration(model, card, network)
    if calibration is not None and calibration.origin != origin:
        if card is not None:
            raise ValueError(
                f"{card} and {index} differ in mirrored images (flip); calibrate as embed was run."
            )
        calibration = None  # of the other kind of embeddings: with or without mirrored images
    faces = read_faces(query, network, align, detector, resize)
    embeddings = embed_faces(faces, network, flip=origin.flip, resize=resize)
    faiss = find_faiss()
    rows, cosines = nearest_rows(
        embeddings, held.embeddings, top, describe=held.describe, faiss=faiss
    )
    names = held.names()
    console = Console()
    for number, path in enumerate(query):
        by = "NumPy" if faiss is None else "faiss"
        title = f"{path.name} in {len(held)} rows of {index.name} (exact, by {by})"
        table = Table("", title=title, title_justify="left")
        for column in ("key", "person", "cosine", *(["likelihood ratio"] if calibration else [])):
            table.add_column(column, overflow="fold")  # a name that is cut is of no use
        for place, (row, cosine) in enumerate(zip(rows[number], cosines[number], strict=True), 1):
            cells = [str(place), str(held.keys[row]), str(names[row]), f"{cosine:.4f}"]
            if calibration is not None:
                cells.append(f"{math.exp(float(calibration.ratios.at(cosine))):.3g}")
            table.add_row(*cells)
        console.print(table)
