"""Align one photograph of a folder: its crop into a file, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from arcface_plus.data.faces.crops import align_image
from arcface_plus.data.faces.detectors import open_detector
from arcface_plus.data.faces.face import FaceDetector
from arcface_plus.data.faces.outcomes import Outcome, Status, numbers_of
from arcface_plus.data.image_headers import image_format
from arcface_plus.data.images import decode_image
from arcface_plus.files import written_beside

_HEAD = 16  # bytes that tell what a file is


@dataclass(frozen=True)
class Job:
    """How photographs below ``source`` become crops below ``output``.

    ``detector``: a name or path for ``open_detector``. ``size``: side of a crop, in pixels.
    ``min_face``: a face whose shorter side is below is too small to train on, in pixels.
    """

    source: Path
    output: Path
    detector: str
    size: int
    min_face: float

    def run(self, photograph: str, crop: str) -> Outcome:
        """Align ``photograph`` and write ``crop``, both paths below the folders."""
        path = self.source / photograph
        outcome = Outcome(photograph, Status.UNREADABLE)
        try:
            outcome = replace(outcome, bytes=path.stat().st_size)
            with path.open("rb") as file:
                head = file.read(_HEAD)
                try:
                    image_format(head)
                except ValueError as error:
                    return replace(outcome, status=Status.NO_IMAGE, note=str(error))
                data = head + file.read()
            pixels = decode_image(data, where=photograph)
        except (OSError, ValueError) as error:
            note = getattr(error, "strerror", None) or str(error).removeprefix(f"{photograph}: ")
            return replace(outcome, note=note)
        return self._crop(pixels, crop, outcome)

    def _crop(self, pixels: np.ndarray, crop: str, outcome: Outcome) -> Outcome:
        try:
            found = align_image(
                pixels,
                opened(self.detector),
                size=self.size,
                min_face=self.min_face,
                where=outcome.photograph,
            )
        except ValueError as error:
            note = str(error).removeprefix(f"no face in {outcome.photograph}; ")
            return replace(outcome, status=Status.NONE, note=note)
        numbers = numbers_of(found.face)
        outcome = replace(outcome, faces=len(found.faces), numbers=numbers)
        if found.face.size < self.min_face:
            note = f"the face is {found.face.size:.0f} px wide, below {self.min_face:g}"
            return replace(outcome, status=Status.TINY, note=note)
        write_image(self.output / crop, found.crop)
        several = sum(face.size >= self.min_face for face in found.faces) > 1
        status = Status.SEVERAL if several else Status.ALIGNED
        return replace(outcome, status=status, crop=crop)


@lru_cache(maxsize=1)
def opened(detector: str) -> FaceDetector:
    """Return the detector, opened once in a process."""
    return open_detector(detector)


def write_image(path: Path, rgb: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB as the format of the path's suffix (JPEG of quality 95)."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(path.suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done, f"OpenCV could not encode an image of shape {rgb.shape} as {path.suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as beside:
        beside.write_bytes(bytes(data))
