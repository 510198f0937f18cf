"""What every face detector gives, and what two of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

SMALLEST_FACE = 20  # pixels; smaller ones are not looked for, or found by chance


@dataclass(frozen=True)
class Face:
    """A face in an image: ``box`` (4,) x1 y1 x2 y2, ``landmarks`` (5, 2), ``score`` in [0, 1].

    In pixels; whole numbers are the centres of pixels. Landmarks are in the order of
    ``data.alignment``: eyes, nose, corners of the mouth, left before right as the image shows them.
    """

    box: np.ndarray
    landmarks: np.ndarray
    score: float

    @property
    def size(self) -> float:
        """The shorter side of the box, in pixels."""
        return float(min(self.box[2] - self.box[0], self.box[3] - self.box[1]))


class FaceDetector(Protocol):
    """Finds faces with five landmarks; several threads may ask at once.

    ``name`` says which network it is, down to the content of its file. ``longest_side``: the images
    it is meant for; larger ones are scaled down before it sees them.
    """

    name: str
    longest_side: int

    def detect(self, image: np.ndarray) -> list[Face]:
        """Return the faces in ``image`` (H, W, 3) uint8 RGB, the surest first."""
        ...


def suppress(
    boxes: np.ndarray, scores: np.ndarray, threshold: float, *, of_smaller: bool = False
) -> np.ndarray:
    """Return the positions of the boxes that no surer box overlaps, by falling score.

    ``boxes`` (N, 4) with x2, y2 inside, ``scores`` (N,). Overlap above ``threshold`` is too much:
    intersection over union, or ``of_smaller``, over the smaller of the two boxes.
    """
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest]) + 1
        height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest]) + 1
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        whole = np.minimum(areas[best], areas[rest]) if of_smaller else areas[best] + areas[rest]
        order = rest[shared <= threshold * (whole if of_smaller else whole - shared)]
    return np.array(kept, dtype=np.int64)
