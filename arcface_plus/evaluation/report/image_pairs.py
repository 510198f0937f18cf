"""The pairs a model gets most wrong, with their photographs inside the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.lazy_images import describe_image
from arcface_plus.data.pairs.sets import PairSet
from arcface_plus.evaluation.report.words import (
    file_name,
    shortened,
)

MOST_SHOWN = 8
_SIDE = 160  # pixels of the longer side: sharp at the size shown, small in the file
_QUALITY = 85


@dataclass(frozen=True)
class Photograph:
    """Hold one side of a pair: ``source`` is a data URI, None where ``problem`` says why."""

    name: str
    source: str | None
    problem: str | None


@dataclass(frozen=True)
class HardPair:
    """Hold a pair that was decided wrongly (``number`` counts pairs from 1)."""

    number: int
    distance: float
    threshold: float
    photographs: tuple[Photograph, Photograph]


def hardest_pairs(
    pairs: PairSet, distances: np.ndarray, limits: np.ndarray, *, genuine: bool
) -> list[HardPair]:
    """Return the wrong decisions of one kind that are furthest beyond their threshold, worst first.

    ``limits``: (N,) threshold of each pair's fold, constant within folds. At most ``MOST_SHOWN``.
    """
    accepted = distances < limits
    wrong = np.flatnonzero((pairs.is_same == genuine) & (accepted != genuine))
    beyond = np.abs(distances - limits)[wrong]
    chosen = wrong[np.argsort(-beyond, kind="stable")][:MOST_SHOWN]
    return [
        HardPair(
            number=int(row) + 1,
            distance=float(distances[row]),
            threshold=float(limits[row]),
            photographs=(
                _photograph(pairs, int(pairs.index_a[row])),
                _photograph(pairs, int(pairs.index_b[row])),
            ),
        )
        for row in chosen
    ]


def _photograph(pairs: PairSet, index: int) -> Photograph:
    person = None if pairs.names is None else pairs.names[index]
    name = file_name(describe_image(pairs.images, index))
    if person is not None and person not in name:
        name = f"{shortened(person)}, {name}"
    try:
        rgb = np.asarray(pairs.images[index])
        source = "data:image/jpeg;base64," + base64.b64encode(_small_jpeg(rgb)).decode("ascii")
    except (ValueError, OSError, cv2.error) as error:
        # The measurement is done; a photograph that is gone since should not cost it. The page
        # says so in the photograph's place.
        return Photograph(name, None, f"not readable: {type(error).__name__}")
    return Photograph(name, source, None)


def _small_jpeg(rgb: np.ndarray) -> bytes:
    height, width = rgb.shape[:2]
    scale = _SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
    return encode_jpeg(rgb, _QUALITY)
