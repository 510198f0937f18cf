"""SCRFD (Guo et al., ICLR 2022), as insightface's ``det_*.onnx`` files hold it.

Each of three strides has two anchors a cell. The nets give, per anchor, a score, the distances
from its centre to the sides of the box, and those to the landmarks, in strides.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from arcface_plus.data.faces.face import Face, suppress

STRIDES, ANCHORS = (8, 16, 32), 2
WIDTHS = (1, 4, 10)  # of an anchor's score, box and landmarks
_SCORE, _OVERLAP = 0.5, 0.4  # as insightface's client
# Its client looks at an image in two sizes: faces that fill it are seen in the small one.
_SIDES = (128, 640)


class Scrfd:
    """A detector from an open SCRFD file; ``name`` names it in records."""

    longest_side = 640

    def __init__(self, session: Any, name: str) -> None:
        self.name = name
        self._session = session
        height, width = session.get_inputs()[0].shape[2:]
        fixed = isinstance(height, int) and isinstance(width, int)
        self._sizes = [(height, width)] if fixed else [(side, side) for side in _SIDES]

    def detect(self, image: np.ndarray) -> list[Face]:
        """Return the faces in ``image`` (H, W, 3) uint8 RGB, the surest first."""
        found = np.concatenate([self._anchors(image, *size) for size in self._sizes])
        scores, boxes = found[:, 0], found[:, 1:5]
        kept = suppress(boxes, scores, _OVERLAP)
        return [Face(boxes[i], found[i, 5:].reshape(5, 2), float(scores[i])) for i in kept]

    def _anchors(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return score, box and landmarks (N, 15) of the sure anchors of one size of the input."""
        scale = min(height / image.shape[0], width / image.shape[1])
        inner = (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
        canvas = np.zeros((height, width, 3), dtype=np.uint8)
        canvas[: inner[1], : inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
        given = ((canvas.astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None]
        outputs = self._session.run(None, {self._session.get_inputs()[0].name: given})
        # Files differ in the order of their outputs, and some keep the batch as first dimension.
        parts = [output.reshape(-1, output.shape[-1]) for output in outputs]
        found = []
        for place, stride in enumerate(STRIDES):
            scores, boxes, points = (
                sorted((p for p in parts if p.shape[1] == wide), key=len, reverse=True)[place]
                for wide in WIDTHS
            )
            sure = np.flatnonzero(scores[:, 0] >= _SCORE)
            y, x = np.divmod(sure // ANCHORS, width // stride)
            centres = np.column_stack([x, y]) * stride
            corners = boxes[sure] * stride * (-1, -1, 1, 1) + np.tile(centres, 2)
            landmarks = points[sure] * stride + np.tile(centres, 5)
            found.append(np.column_stack([scores[sure], corners / scale, landmarks / scale]))
        return np.concatenate(found)
