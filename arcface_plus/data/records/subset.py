"""Cut a record file down to some of its identities or images, image bytes unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arcface_plus.data.image_headers import image_size
from arcface_plus.data.records.reader import RecordReader, RecordWriter

Progress = Callable[[int, int], None]


class SubsetSummary(NamedTuple):
    """Say what was cut: the record file, the file that maps its labels, and the counts."""

    path: Path
    mapping: Path
    identities: int
    images: int


def choose_identities(
    labels: np.ndarray, identities: int, *, seed: int = 0, min_images: int = 1
) -> np.ndarray:
    """Return ``identities`` different ones of ``labels`` (n,), ascending.

    Drawn with equal chances from those of at least ``min_images`` images; the same seed gives the
    same ones. Raises ValueError where there are too few.
    """
    if identities < 1 or min_images < 1:
        raise ValueError(f"identities={identities} and min_images={min_images} must be at least 1")
    known, counts = np.unique(labels, return_counts=True)
    able = known[counts >= min_images]
    if len(able) < identities:
        raise ValueError(
            f"{identities} identities are wanted, but only {len(able)} of {len(known)} have at "
            f"least {min_images} image(s); ask for fewer, or for fewer images of each"
        )
    return np.sort(np.random.default_rng(seed).choice(able, identities, replace=False))


def cut_subset(
    reader: RecordReader,
    output: Path,
    identities: int,
    *,
    seed: int = 0,
    min_images: int = 1,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> SubsetSummary:
    """Write all images of ``identities`` random people to ``output`` in InsightFace's layout.

    Labels become 0, 1, … in the order of the source's; NAME.classes.csv beside the records says
    which was which (label, source_label, images). Raises ValueError as ``choose_identities``, for
    the source's own folder, and where a file exists and ``overwrite`` is not set.
    """
    chosen = choose_identities(reader.labels, identities, seed=seed, min_images=min_images)
    return write_images(
        reader,
        output,
        np.flatnonzero(np.isin(reader.labels, chosen)),
        overwrite=overwrite,
        on_progress=on_progress,
    )


def write_images(
    reader: RecordReader,
    output: Path,
    positions: np.ndarray,
    *,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> SubsetSummary:
    """Write the images at ``positions`` (n,) of ``reader`` as ``cut_subset`` does those of people.

    A person of whom no image is left has no label any more. Raises ValueError as ``cut_subset``
    does for places, and for no image at all.
    """
    if not len(positions):
        raise ValueError(f"no image of {reader.path} is left to write")
    output = output if output.suffix == ".rec" else output / "train.rec"
    mapping = output.with_suffix(".classes.csv")
    if output.resolve().parent == reader.path.resolve().parent:
        # Overwriting would replace the source's property, or the source.
        raise ValueError(f"{output} is in the folder of {reader.path}; choose another folder")
    if mapping.exists() and not overwrite:
        raise ValueError(f"{mapping} exists; choose another place, or overwrite")
    labels = reader.labels[positions]
    # By person, as the layout wants; a person's images keep their order.
    positions = positions[np.argsort(labels, kind="stable")]
    chosen, ranks = np.unique(reader.labels[positions], return_inverse=True)
    size = _size_of(reader, int(positions[0]))
    with RecordWriter(output, image_size=size, overwrite=overwrite) as writer:
        for done, (position, label) in enumerate(zip(positions, ranks, strict=True), start=1):
            record = reader[int(position)]
            old = record.label  # of several numbers the first is the class; the others stay
            new = np.append(label, old[1:]) if isinstance(old, np.ndarray) else float(label)
            writer.write(record.data, new)
            if on_progress is not None:
                on_progress(done, len(positions))
    counts = np.bincount(ranks)
    rows = [f"{i},{chosen[i]},{counts[i]}\n" for i in range(len(chosen))]
    mapping.write_text("label,source_label,images\n" + "".join(rows), encoding="utf-8")
    return SubsetSummary(output, mapping, len(chosen), len(positions))


def _size_of(reader: RecordReader, position: int) -> tuple[int, int]:
    """Return height and width of the images: as ``property`` says, else those of one of them."""
    if reader.property is not None:
        return reader.property.height, reader.property.width
    record = reader[position]
    try:
        return image_size(record.data)
    except ValueError as error:
        raise ValueError(f"{reader.path}: record {record.key}: {error}") from error
