"""From an image to the crop of its face: which face counts, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_plus.data.alignment import TEMPLATE_SIZE, align_face
from arcface_plus.data.faces.detectors import find_faces
from arcface_plus.data.faces.face import SMALLEST_FACE, Face, FaceDetector
from arcface_plus.data.images import read_image
from arcface_plus.data.lazy_images import ImageSequence, describe_image, identify_image


@dataclass(frozen=True)
class FaceCrop:
    """An aligned face: ``crop`` (size, size, 3) uint8 RGB, the chosen ``face``, all ``faces``."""

    crop: np.ndarray
    face: Face
    faces: list[Face]


def choose_face(faces: Sequence[Face], height: int, width: int) -> Face:
    """Return the face that an image of ``height`` × ``width`` is taken to show.

    That with the greatest area − 2·d², d the distance from the box's centre to the image's: the
    rule of insightface's detectors (and of FaceNet's alignment), which prefers large faces near
    the centre.
    """
    centre = np.array([width - 1, height - 1]) / 2

    def weight(face: Face) -> float:
        corners = face.box.reshape(2, 2)
        area = float(np.prod(corners[1] - corners[0]))
        return area - 2 * float(np.sum((corners.mean(axis=0) - centre) ** 2))

    return max(faces, key=weight)


def align_image(
    image: np.ndarray | str | Path,
    detector: FaceDetector,
    *,
    size: int = TEMPLATE_SIZE,
    min_face: float = 0,
    where: str | None = None,
) -> FaceCrop:
    """Return the crop of the face in ``image``, a file or (H, W, 3) uint8 RGB.

    Of several faces, the one ``choose_face`` names; those below ``min_face`` pixels count only
    where there is no other. ``where`` names the image in errors; a file names itself. Raises
    ValueError "no face in …", and as ``read_image`` for files.
    """
    where = where or (str(image) if isinstance(image, str | Path) else "the image")
    pixels = read_image(image) if isinstance(image, str | Path) else image
    faces = find_faces(detector, pixels)
    height, width = pixels.shape[:2]
    if not faces and min(height, width) < SMALLEST_FACE:
        raise ValueError(
            f"no face in {where}; {width}×{height} pixels is too small for a face (at least "
            f"{SMALLEST_FACE} a side)"
        )
    if not faces:
        raise ValueError(
            f"no face in {where}; give a photograph with a larger or clearer face, or another "
            "detector"
        )
    large = [face for face in faces if face.size >= min_face]
    face = choose_face(large or faces, height, width)
    return FaceCrop(align_face(pixels, face.landmarks, size), face, faces)


class FaceCrops:
    """The crops of ``images``, each aligned by ``detector`` when asked for.

    Reading raises ValueError, naming the image, where it shows no face.
    """

    def __init__(
        self, images: ImageSequence, detector: FaceDetector, size: int = TEMPLATE_SIZE
    ) -> None:
        self.images, self.detector, self.size = images, detector, size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> np.ndarray:
        image, where = self.images[index], self.describe(index)
        return align_image(image, self.detector, size=self.size, where=where).crop

    def describe(self, index: int) -> str:
        return describe_image(self.images, index)

    def identity(self, index: int) -> bytes:
        return identify_image(self.images, index) + f"\0{self.detector.name}".encode()
