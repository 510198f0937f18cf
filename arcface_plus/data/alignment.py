"""Cut faces to the ArcFace template by five landmarks.

Landmarks are (5, 2) pixel coordinates x, y: the eyes, the nose, the corners of the mouth, left
before right as the image shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from arcface_plus.data.lazy_images import ImageFiles

# Where the landmarks lie in a 112 × 112 crop. It is the 96 × 112 template of earlier work, 8 px
# further right: the shift that evaluators of IJB write out.
TEMPLATE_SIZE = 112
ARCFACE_TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the (2, 3) matrix of rotation, scale and shift that takes ``source`` to ``target``.

    Points are (K, 2), K >= 2; squared errors are least (Umeyama, PAMI 1991, without reflection). In
    the plane that is one division of complex numbers: z = Σ conj(s) t / Σ |s|² of centred points.

    Raises ValueError for other shapes, values that are not finite, and points that determine no
    transform (all in one place, or so that every rotation fits equally).
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2 or len(source) < 2:
        raise ValueError(
            f"Points must be (K, 2) on both sides, K >= 2, but are {source.shape} and "
            f"{target.shape}."
        )
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ValueError("Points must be finite, but some are NaN or infinite.")
    centre, goal = source.mean(axis=0), target.mean(axis=0)
    s, t = source - centre, target - goal
    spread = float(np.sum(s * s))
    real = float(np.sum(s * t))
    imaginary = float(np.sum(s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]))
    fit = np.hypot(real, imaginary)
    if spread <= 1e-12 * max(1.0, float(np.sum(centre**2))) or fit <= 1e-12 * np.sqrt(
        spread * np.sum(t * t)
    ):
        raise ValueError(
            f"The points {source.round(2).tolist()} determine no similarity transform: they "
            "coincide or fit every rotation equally."
        )
    a, b = real / spread, imaginary / spread
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, goal - linear @ centre])


def align_face(image: np.ndarray, landmarks: np.ndarray, size: int = TEMPLATE_SIZE) -> np.ndarray:
    """Return the (size, size, 3) uint8 crop of ``image`` whose landmarks lie on the template.

    ``image`` (H, W, 3) uint8; bilinear, black outside the image. For another ``size`` the template
    is scaled with it. Raises ValueError as ``similarity_transform``.
    """
    matrix = similarity_transform(landmarks, ARCFACE_TEMPLATE * (size / TEMPLATE_SIZE))
    return np.asarray(
        cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=0)
    )


class AlignedImages(ImageFiles):
    """Image files below ``root``, each cut to the template by its own landmarks when asked for.

    ``landmarks`` (N, 5, 2). Raises ValueError where the counts differ.
    """

    def __init__(
        self,
        names: Sequence[str],
        landmarks: np.ndarray,
        *,
        root: str | Path,
        size: int = TEMPLATE_SIZE,
    ) -> None:
        if np.shape(landmarks) != (len(names), 5, 2):
            raise ValueError(
                f"{len(names)} images need landmarks of shape ({len(names)}, 5, 2), but they are "
                f"{np.shape(landmarks)}."
            )
        super().__init__(names, root=Path(root))
        self.landmarks, self.size = landmarks, size

    def __getitem__(self, index: int, /) -> np.ndarray:
        image = super().__getitem__(index)
        try:
            return align_face(image, self.landmarks[index], self.size)
        except ValueError as error:
            raise ValueError(f"{self.describe(index)}: {error}") from error

    def identity(self, index: int) -> bytes:
        return self.paths[index].encode() + np.asarray(self.landmarks[index]).tobytes()
