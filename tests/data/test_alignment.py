from __future__ import annotations

import cv2
import numpy as np
import pytest

from arcface_plus.data.alignment import (
    ARCFACE_TEMPLATE,
    AlignedImages,
    align_face,
    similarity_transform,
)
from arcface_plus.data.images import encode_jpeg


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Umeyama's estimate by singular values (PAMI 1991, equations 34 to 43)."""
    mean_s, mean_t = source.mean(axis=0), target.mean(axis=0)
    s, t = source - mean_s, target - mean_t
    covariance = t.T @ s / len(source)
    u, d, v = np.linalg.svd(covariance)
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u @ np.diag(sign) @ v
    scale = (d * sign).sum() / (s * s).sum() * len(source)
    return np.column_stack([scale * rotation, mean_t - scale * rotation @ mean_s])


@pytest.mark.parametrize("points", [2, 3, 5, 68])
def test_equals_umeyama(points):
    rng = np.random.default_rng(points)
    for _ in range(50):
        source = rng.normal(100, 40, (points, 2))
        target = rng.normal(60, 30, (points, 2))
        got = similarity_transform(source, target)
        np.testing.assert_allclose(got, umeyama(source, target), rtol=1e-8, atol=1e-8)


def test_recovers_a_known_transform_exactly():
    angle, scale, shift = 0.7, 1.9, np.array([12.0, -30.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = ARCFACE_TEMPLATE @ turn.T + shift
    got = similarity_transform(ARCFACE_TEMPLATE, moved)
    np.testing.assert_allclose(got, np.column_stack([turn, shift]), atol=1e-12)


def test_squared_error_is_least():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    best = similarity_transform(source, target)

    def error(a: float, b: float, x: float, y: float) -> float:
        linear = np.array([[a, -b], [b, a]])
        return float(np.sum((source @ linear.T + [x, y] - target) ** 2))

    centre = np.array([best[0, 0], best[1, 0], best[0, 2], best[1, 2]])
    for step in rng.normal(0, 1e-3, (100, 4)):
        assert error(*centre) < error(*(centre + step))


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (np.ones((5, 2)), "determine no similarity"),
        (np.full((5, 2), 1e9), "determine no similarity"),
        (np.full((5, 2), np.nan), "finite"),
        (np.ones((4, 2)), r"\(4, 2\)"),
        (np.ones((5, 3)), "must be"),
        # A mirrored square fits every rotation equally.
        (None, "every rotation"),
    ],
)
def test_points_without_a_transform(source, match):
    target = ARCFACE_TEMPLATE
    if source is None:
        target = np.array([[1.0, 1], [-1, 1], [-1, -1], [1, -1]])
        source = target * [-1, 1]
    with pytest.raises(ValueError, match=match):
        similarity_transform(source, target)


def test_landmarks_land_on_the_template():
    """A bright dot at a landmark of the photograph is a bright dot of the crop."""
    for number, size in ((0, 112), (2, 112), (4, 224)):
        image = np.zeros((300, 260, 3), dtype=np.uint8)
        landmarks = (ARCFACE_TEMPLATE * 1.5 + np.array([40, 60])).round()
        x, y = landmarks[number].astype(int)
        cv2.circle(image, (int(x), int(y)), 4, (255, 255, 255), -1)
        crop = align_face(image, landmarks, size)
        assert crop.shape == (size, size, 3) and crop.dtype == np.uint8
        row, column = np.nonzero(crop[..., 0] > 128)
        wanted = ARCFACE_TEMPLATE[number] * size / 112
        np.testing.assert_allclose([column.mean(), row.mean()], wanted, atol=0.8)


def test_outside_the_photograph_is_black():
    image = np.full((112, 112, 3), 200, dtype=np.uint8)
    crop = align_face(image, ARCFACE_TEMPLATE + np.array([0, 56]))
    assert (crop[:50] == 200).all() and (crop[60:] == 0).all()


def test_aligned_images_of_files(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(image))
    landmarks = np.stack([ARCFACE_TEMPLATE, np.zeros((5, 2))])
    images = AlignedImages(["a.jpg", "a.jpg"], landmarks, root=tmp_path)
    assert len(images) == 2 and images[0].shape == (112, 112, 3)
    assert images.describe(1) == str(tmp_path / "a.jpg")
    assert images.identity(0) != images.identity(1)
    with pytest.raises(ValueError, match=r"a\.jpg: The points .* determine no"):
        images[1]
    with pytest.raises(ValueError, match=r"3 images need landmarks"):
        AlignedImages(["a"] * 3, landmarks, root=tmp_path)


def test_real_photographs_align_to_their_published_crops(shared_data):
    """Photographs cut by detected landmarks meet the crops that others made of them."""
    from arcface_plus.data.images import read_image

    lines = (shared_data / "photos" / "points_yunet.tsv").read_text().splitlines()[:20]
    names = [line.split("\t")[0] for line in lines]
    numbers = np.array([line.split("\t")[1:11] for line in lines], dtype=float)
    held = {p.name: p for p in (shared_data / "photos" / "images").rglob("*.jpg")}
    paths = [str(held[name.rsplit("/", 1)[-1]]) for name in names]
    crops = AlignedImages(paths, numbers.reshape(-1, 5, 2), root="/")
    likeness = []
    for i, name in enumerate(names):
        published = shared_data / "lfw" / "images" / name
        if published.is_file():
            mine = crops[i][20:92, 20:92].astype(float).ravel()
            theirs = read_image(published)[20:92, 20:92].astype(float).ravel()
            likeness.append(np.corrcoef(mine, theirs)[0, 1])
    # Landmarks of two detectors differ by a pixel or two; a wrong order of points gives 0.3 or so.
    assert len(likeness) >= 5 and np.median(likeness) > 0.8
