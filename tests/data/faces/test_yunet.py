from __future__ import annotations

import csv

import numpy as np
import pytest

from arcface_plus.data.faces.detectors import find_faces, open_detector
from arcface_plus.data.images import read_image


@pytest.fixture(scope="module")
def detector(shared_data):
    return open_detector(shared_data / "models" / "face_detection_yunet_2026may.onnx")


def test_gives_the_published_points(detector, shared_data, capfd):
    assert detector.name.startswith("yunet ")
    with (shared_data / "photos" / "points_yunet.tsv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t"))[:40]
    nearest = []
    for name, *numbers in rows:
        image = read_image(shared_data / "photos" / "images" / name.rpartition("/")[2])
        points = np.array(numbers[:10], dtype=float).reshape(5, 2)
        faces = detector.detect(image)
        nearest.append(min(np.abs(face.landmarks - points).max() for face in faces))
        assert [face.score for face in faces] == sorted((f.score for f in faces), reverse=True)
    # Decoders of JPEG differ by a grey value, which moves some points.
    assert np.median(nearest) < 0.05 and np.max(nearest) < 2
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 3, 3), (1, 900, 3), (600, 2, 3)])
def test_odd_shapes(detector, shape):
    assert find_faces(detector, np.full(shape, 128, dtype=np.uint8)) == []
