"""Single photographs: their faces, and two of them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from arcface_plus.data.faces.crops import align_image
from arcface_plus.data.faces.face import FaceDetector
from arcface_plus.data.images import read_image, resized
from arcface_plus.files import written_beside

_SIDE, _MARGIN, _LINE = 336, 16, 26
_INK, _PAPER = (34, 34, 34), 255
_PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Photographs:
    """Images (H, W, 3) uint8 RGB with the names of their files; what is to be said of them."""

    images: list[np.ndarray]
    names: list[str]
    notes: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.images[index]

    def describe(self, index: int) -> str:
        return self.names[index]


def read_photographs(
    paths: Sequence[Path], size: int, detector: FaceDetector | None
) -> Photographs:
    """Read photographs; with a ``detector``, the (size, size, 3) crop of the face in each.

    Raises ValueError naming the file where it is no image or shows no face, FileNotFoundError.
    """
    names = [str(path) for path in paths]
    if detector is None:
        return Photographs([read_image(path) for path in paths], names, [])
    crops = [align_image(path, detector, size=size) for path in paths]
    notes = [
        f"{name}: {len(crop.faces)} faces; the larger, more central one is taken"
        for name, crop in zip(names, crops, strict=True)
        if len(crop.faces) > 1
    ]
    return Photographs([crop.crop for crop in crops], names, notes)


def check_picture(path: Path) -> None:
    """Raise an error where no picture can be written."""
    if path.suffix.lower() not in _PICTURES:
        raise ValueError(f"{path}: a picture is written as {', '.join(_PICTURES)}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} of --picture does not exist.")


def draw_comparison(path: Path, photographs: Photographs, lines: Sequence[str]) -> None:
    """Draw two photographs side by side with ``lines`` of text below, and write the picture."""
    width = 2 * _SIDE + 3 * _MARGIN
    height = _SIDE + 2 * _MARGIN + _LINE * len(lines) + _MARGIN
    sheet = np.full((height, width, 3), _PAPER, dtype=np.uint8)
    for number in range(2):
        left = _MARGIN + number * (_SIDE + _MARGIN)
        face = resized(photographs[number], _SIDE)
        sheet[_MARGIN : _MARGIN + _SIDE, left : left + _SIDE] = face[..., ::-1]
    for number, line in enumerate(lines):
        below = _SIDE + 2 * _MARGIN + _LINE * number + 18
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(sheet, line, (_MARGIN, below), font, 0.55, _INK, 1, cv2.LINE_AA)
    done, data = cv2.imencode(path.suffix.lower(), sheet)
    assert done, f"OpenCV could not encode {path.name}"
    with written_beside(path) as beside:
        beside.write_bytes(bytes(data))
