from __future__ import annotations

import cv2
import numpy as np
import pytest

from arcface_plus.data.alignment import ARCFACE_TEMPLATE
from arcface_plus.data.faces.crops import FaceCrops, align_image, choose_face
from arcface_plus.data.faces.face import Face
from arcface_plus.data.images import encode_jpeg


def norm_crop(image: np.ndarray, landmarks: np.ndarray, size: int) -> np.ndarray:
    """insightface's crop: the similarity of least squares as a linear system, then bilinear."""
    rows, wanted = [], []
    for (x, y), (u, v) in zip(landmarks, ARCFACE_TEMPLATE * size / 112, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        wanted += [u, v]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    return cv2.warpAffine(image, np.array([[a, -b, tx], [b, a, ty]]), (size, size))


@pytest.fixture
def photograph() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    return cv2.resize(noise, (300, 240), interpolation=cv2.INTER_CUBIC)


def turned(face: Face, degrees: float) -> Face:
    angle, centre = np.radians(degrees), face.landmarks.mean(axis=0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return Face(face.box, (face.landmarks - centre) @ turn.T + centre, face.score)


@pytest.mark.parametrize(("degrees", "size"), [(0, 112), (25, 112), (-70, 64)])
def test_crop_is_that_of_insightface(photograph, fixed_detector, new_face, degrees, size):
    face = turned(new_face(80, 60, 90), degrees)
    found = align_image(photograph, fixed_detector(face), size=size)
    expected = norm_crop(photograph, face.landmarks, size)
    assert found.crop.shape == (size, size, 3) and found.crop.std() > 20
    assert np.abs(found.crop.astype(int) - expected.astype(int)).max() <= 2


def test_the_largest_and_most_central_face_counts(new_face):
    rng = np.random.default_rng(3)
    for _ in range(30):
        faces = [new_face(*rng.uniform(0, 200, 2), rng.uniform(20, 90)) for _ in range(4)]
        weights = []
        for face in faces:
            x1, y1, x2, y2 = face.box
            off = ((x1 + x2) / 2 - 149.5) ** 2 + ((y1 + y2) / 2 - 99.5) ** 2
            weights.append((x2 - x1) * (y2 - y1) - 2 * off)
        assert choose_face(faces, 200, 300) is faces[int(np.argmax(weights))]


def test_small_faces_count_only_alone(photograph, fixed_detector, new_face):
    central, aside = new_face(140, 110, 20), new_face(10, 10, 60)
    detector = fixed_detector(central, aside)
    assert align_image(photograph, detector).face.size == 20
    found = align_image(photograph, detector, min_face=40)
    assert found.face.size == 60 and len(found.faces) == 2
    assert align_image(photograph, fixed_detector(central), min_face=40).face.size == 20


def test_no_face_names_the_image(photograph, fixed_detector, tmp_path):
    path = tmp_path / "landscape.jpg"
    path.write_bytes(encode_jpeg(photograph))
    with pytest.raises(ValueError, match=r"^no face in .*landscape\.jpg; "):
        align_image(path, fixed_detector())
    with pytest.raises(ValueError, match=r"^no face in record 3; "):
        align_image(photograph, fixed_detector(), where="record 3")


def test_an_image_too_small_for_a_face_says_so(fixed_detector):
    with pytest.raises(ValueError, match=r"^no face in a; 4×3 pixels is too small .*at least 20"):
        align_image(np.zeros((3, 4, 3), np.uint8), fixed_detector(), where="a")


def test_files_that_are_no_photographs(fixed_detector, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        align_image(tmp_path / "gone.jpg", fixed_detector())
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.jpg: unknown image format"):
        align_image(str(tmp_path / "text.jpg"), fixed_detector())


def test_a_sequence_of_crops(photograph, fixed_detector, new_face):
    crops = FaceCrops([photograph, photograph[:, ::-1]], fixed_detector(new_face(80, 60, 90)), 48)
    assert len(crops) == 2 and crops[0].shape == (48, 48, 3)
    assert (crops[0] != crops[1]).any() and crops.describe(1) == "image 1"
    assert crops.identity(0) != crops.identity(1)
    other = fixed_detector(new_face(80, 60, 90))
    other.name = "other"
    assert FaceCrops([photograph], other, 48).identity(0) != crops.identity(0)
    with pytest.raises(ValueError, match="no face in image 1"):
        FaceCrops([photograph] * 2, fixed_detector(), 48)[1]
