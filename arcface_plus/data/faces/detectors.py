"""Open a face detector by its name or file, and look for faces in images of any size."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from arcface_plus.data.faces.face import Face, FaceDetector
from arcface_plus.data.faces.mtcnn import Mtcnn
from arcface_plus.data.faces.onnx_file import open_onnx
from arcface_plus.data.faces.scrfd import STRIDES, WIDTHS, Scrfd
from arcface_plus.data.faces.yunet import YuNet

DEFAULT = "mtcnn"
_YUNET = {f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in STRIDES}


def open_detector(name_or_path: str | Path = DEFAULT) -> FaceDetector:
    """Return the detector ``mtcnn``, or that of a YuNet or SCRFD file in ONNX form.

    Which of the two a file is, its outputs tell. Raises ValueError for other files and names,
    FileNotFoundError, and ModuleNotFoundError without the packages of the extra ``align``.
    """
    if str(name_or_path) == DEFAULT:
        return Mtcnn()
    path = Path(name_or_path)
    if path.suffix != ".onnx" and not path.exists():
        raise ValueError(
            f"detector {str(name_or_path)!r} is unknown; use {DEFAULT!r} or a YuNet or SCRFD file "
            "(.onnx)"
        )
    session = open_onnx(path)
    content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    outputs = session.get_outputs()
    if {output.name for output in outputs} == _YUNET:
        return YuNet(path, f"yunet {content}")
    if _is_scrfd(session):
        return Scrfd(session, f"scrfd {content}")
    shown = ", ".join(f"{output.name} {output.shape}" for output in outputs[:4])
    raise ValueError(
        f"{path} is no face detector with landmarks that is known here: its outputs are {shown}"
        f"{' …' if len(outputs) > 4 else ''}. YuNet has cls, obj, bbox and kps of strides 8, 16 "
        "and 32; SCRFD three outputs each of width 1, 4 and 10."
    )


def find_faces(detector: FaceDetector, image: np.ndarray) -> list[Face]:
    """Return the faces that ``detector`` finds in ``image`` (H, W, 3) uint8 RGB of any size.

    A larger image than it is meant for is scaled down for it; the faces are in pixels of
    ``image``. Faces whose numbers are not finite are left out.
    """
    height, width = image.shape[:2]
    scale = min(1.0, detector.longest_side / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    factor = np.array([width / image.shape[1], height / image.shape[0]])
    found = []
    for face in detector.detect(image):
        # The centres of pixels are whole numbers: the image's edge is at −0.5.
        box = (face.box.reshape(2, 2) + 0.5) * factor - 0.5
        landmarks = (face.landmarks + 0.5) * factor - 0.5
        if np.isfinite(box).all() and np.isfinite(landmarks).all():
            found.append(Face(box.ravel(), landmarks, face.score))
    return found


def _is_scrfd(session: Any) -> bool:
    """Say whether a net takes one image and gives three outputs each of an anchor's widths."""
    inputs, shapes = session.get_inputs(), [output.shape for output in session.get_outputs()]
    widths = sorted(shape[-1] if shape and isinstance(shape[-1], int) else 0 for shape in shapes)
    return (
        len(inputs) == 1 and len(inputs[0].shape) == 4 and widths == sorted(WIDTHS * len(STRIDES))
    )
