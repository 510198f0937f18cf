"""SCRFD's decoding, written again anchor by anchor, on a random net of its form."""

from __future__ import annotations

import cv2
import numpy as np
import onnxruntime
import pytest

from arcface_plus.data.faces.detectors import find_faces, open_detector
from arcface_plus.data.faces.face import suppress


def naive_anchors(path, image: np.ndarray, side: int) -> np.ndarray:
    """Return score, box and landmarks of the anchors from 0.5 on, in pixels of ``image``."""
    session = onnxruntime.InferenceSession(path)
    height, width = image.shape[:2]
    scale = min(side / height, side / width)
    canvas = np.zeros((side, side, 3), dtype=np.uint8)
    inner = cv2.resize(image, (int(width * scale), int(height * scale)))
    canvas[: inner.shape[0], : inner.shape[1]] = inner
    given = np.moveaxis((canvas.astype(np.float32) - 127.5) / 128, 2, 0)[None]
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, {"input": given}), strict=True))
    found = []
    for stride in (8, 16, 32):
        row = 0
        for y in range(side // stride):
            for x in range(side // stride):
                for _anchor in range(2):
                    score = outputs[f"score_{stride}"][row, 0]
                    left, top, right, bottom = outputs[f"bbox_{stride}"][row] * stride
                    points = outputs[f"kps_{stride}"][row] * stride
                    row += 1
                    if score < 0.5:
                        continue
                    cx, cy = x * stride, y * stride
                    box = [cx - left, cy - top, cx + right, cy + bottom]
                    marks = [p + (cx, cy)[i % 2] for i, p in enumerate(points)]
                    found.append([score, *(np.array([*box, *marks]) / scale)])
    return np.array(found)


@pytest.mark.parametrize(("side", "sides"), [(None, (128, 640)), (160, (160,))])
@pytest.mark.parametrize("shape", [(90, 60, 3), (300, 401, 3)])
def test_equals_the_anchors_one_by_one(scrfd_file, side, sides, shape):
    image = np.random.default_rng(shape[0]).integers(0, 256, shape, dtype=np.uint8)
    path = scrfd_file(side)
    rows = np.concatenate([naive_anchors(path, image, each) for each in sides])
    rows = rows[suppress(rows[:, 1:5], rows[:, 0], 0.4)]
    faces = open_detector(path).detect(image)
    assert len(faces) == len(rows) > 3
    for face, row in zip(faces, rows, strict=True):
        got = [face.score, *face.box, *face.landmarks.ravel()]
        np.testing.assert_allclose(got, row, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 900, 3)])
def test_odd_shapes_give_faces_or_none(scrfd_file, shape):
    for face in find_faces(open_detector(scrfd_file()), np.full(shape, 200, dtype=np.uint8)):
        assert np.isfinite(face.landmarks).all()
