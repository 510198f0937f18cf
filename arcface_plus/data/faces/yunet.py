"""YuNet, through OpenCV's own reader of it (``cv2.FaceDetectorYN``)."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import cv2
import numpy as np

from arcface_plus.data.faces.face import Face

_SCORE, _OVERLAP = 0.7, 0.3  # a face's least score; overlap of two faces, as OpenCV proposes


class YuNet:
    """A detector from a YuNet file; ``name`` names it in records."""

    longest_side = 640

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(2)  # errors: OpenCV 5 warns that it chose where to run
        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", (32, 32), _SCORE, _OVERLAP)
        except cv2.error as error:
            raise ValueError(
                f"{path}: OpenCV {cv2.__version__} cannot read this YuNet file ({error.err}); "
                "fix: give the YuNet file of its release"
            ) from error
        finally:
            cv2.utils.logging.setLogLevel(level)
        self._lock = Lock()  # the input size is a property of the net

    def detect(self, image: np.ndarray) -> list[Face]:
        """Return the faces in ``image`` (H, W, 3) uint8 RGB, the surest first."""
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        with self._lock:
            self._net.setInputSize((image.shape[1], image.shape[0]))
            _, rows = self._net.detect(bgr)
        if rows is None:
            return []
        # A row: x, y, width, height, five landmarks, score.
        rows = rows[np.argsort(-rows[:, 14], kind="stable")].astype(np.float64)
        return [
            Face(np.concatenate([row[:2], row[:2] + row[2:4]]), row[4:14].reshape(5, 2), row[14])
            for row in rows
        ]
