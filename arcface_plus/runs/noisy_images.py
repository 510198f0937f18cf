"""Training images that a run with several centres a class shows to be noise, left out of a copy.

The rule of sub-centre ArcFace (Deng et al., ECCV 2020): of each class only the dominant centre is
kept, to which most of its images are nearest, and images further than 75° from it are dropped.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from arcface_plus.checkpoints.parts import ClassRows
from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.data.records.images import RecordImages
from arcface_plus.data.records.subset import write_images
from arcface_plus.data.sources.image_source import open_source
from arcface_plus.distributed import start_world
from arcface_plus.evaluation.embedding.embed import EmbeddingOptions, embed_rows
from arcface_plus.models import load_model
from arcface_plus.runs.beginning import TrainingImages
from arcface_plus.runs.configuration import RunConfig, load_config

ANGLE = 75.0
_WEIGHT = "head.weight"
Progress = Callable[[int, int], None]


class DropSummary(NamedTuple):
    """What was kept of ``images`` images of ``people``, and where the list of the others is.

    ``records``: the record file of the kept ones, or None where the run was not trained on records.
    """

    images: int
    people: int
    kept_images: int
    kept_people: int
    dropped: Path
    records: Path | None


def drop_noisy_images(
    run: Path, output: Path, *, angle: float = ANGLE, on_progress: Progress | None = None
) -> DropSummary:
    """Find the noise in what ``run`` was trained on, and write it and what is left to ``output``.

    ``dropped.csv``: position, label, name and angle in degrees from the dominant centre of each
    image beyond ``angle``. ``train.rec``: the others, where the run was trained on records.
    Images are embedded once, unchanged and not mirrored, as the authors' code does.
    Raises ValueError for a run with one centre a class or without a checkpoint, an angle outside
    0 to 180, and an ``output`` with files of these names; FileNotFoundError for no run.
    """
    if not 0 < angle < 180:
        raise ValueError(f"angle is {angle:g}, but must lie between 0 and 180 degrees")
    dropped = output / "dropped.csv"
    if dropped.exists():
        raise ValueError(f"{dropped} exists; choose another folder")
    config = load_config(run / "config.yaml")
    source = open_source(config.data, seed=config.seed)
    centres = _centres(run, config)
    options = EmbeddingOptions(flip=False)
    images = TrainingImages(config, source)
    embeddings = embed_rows(
        load_model(run), images, range(len(source)), options, progress=on_progress
    )
    angles = angles_from_dominant(embeddings, source.labels, centres)
    kept = angles <= angle  # not where an image could not be read
    output.mkdir(parents=True, exist_ok=True)
    records = None
    if isinstance(source, RecordImages):
        records = write_images(source.reader, output, np.flatnonzero(kept)).path
    with dropped.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["position", "label", "image", "degrees"])
        for index in np.flatnonzero(~kept).tolist():
            place = (index, int(source.labels[index]), source.describe(index))
            rows.writerow([*place, f"{angles[index]:.2f}"])
    return DropSummary(
        images=len(kept),
        people=len(np.unique(source.labels)),
        kept_images=int(kept.sum()),
        kept_people=len(np.unique(source.labels[kept])),
        dropped=dropped,
        records=records,
    )


def angles_from_dominant(
    embeddings: np.ndarray, labels: np.ndarray, centres: torch.Tensor
) -> np.ndarray:
    """Return the angle (n,) in degrees of each image from the dominant centre of its class.

    ``embeddings`` (n, D); a row of NaN has NaN. ``labels`` (n,); ``centres`` (C, K, D).
    """
    count = centres.shape[1]
    cosines = np.full((len(labels), count), np.nan, dtype=np.float32)
    for part in np.array_split(np.arange(len(labels)), max(1, len(labels) // 4096)):
        unit = F.normalize(torch.from_numpy(embeddings[part]), dim=1)
        own = F.normalize(centres[torch.from_numpy(labels[part])], dim=2)
        cosines[part] = torch.einsum("nd,nkd->nk", unit, own).numpy()
    read = np.isfinite(cosines).all(axis=1)
    counts = np.zeros((len(centres), count), dtype=np.int64)
    np.add.at(counts, (labels[read], cosines[read].argmax(axis=1)), 1)
    dominant = counts.argmax(axis=1)
    own_cosine = cosines[np.arange(len(labels)), dominant[labels]]
    angles: np.ndarray = np.degrees(np.arccos(np.clip(own_cosine, -1, 1)))
    return angles


def _centres(run: Path, config: RunConfig) -> torch.Tensor:
    """Return the class weights (C, K, D) of the run's model, from its checkpoint."""
    if config.head.centres == 1:
        raise ValueError(
            f"{run} was trained with one centre a class; train with --head.centres 3 to find noise"
        )
    with start_world("cpu") as world:
        checkpoints = Checkpoints(run / "checkpoints", world)
        steps = checkpoints.steps()
        if not steps:
            raise ValueError(f"{run} has no checkpoint, which holds the centres of its classes")
        path = checkpoints.path(steps[-1])
        centres = torch.empty(checkpoints.stored_shape(path, _WEIGHT))
        numbers = checkpoints.load(path, {_WEIGHT: ClassRows(centres, len(centres))})
        best = numbers["best"]["step"]
        if best not in (None, steps[-1]):  # the run's model is that of its best evaluation
            checkpoints.load(checkpoints.path(best), {_WEIGHT: ClassRows(centres, len(centres))})
    return centres
