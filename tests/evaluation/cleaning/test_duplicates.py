from __future__ import annotations

import cv2
import numpy as np
import pytest

from arcface_plus.data.images import decode_image, encode_jpeg
from arcface_plus.evaluation.cleaning.duplicates import (
    SIDE,
    choose_kept,
    near_duplicates,
    thumbnail,
)


def face(seed: int) -> np.ndarray:
    """Return a smooth picture (112, 112, 3) of its own."""
    rng = np.random.default_rng(seed)
    small = rng.integers(20, 236, (12, 12, 3), dtype=np.uint8)
    return cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)


COPIES = {
    "coarse": lambda image: decode_image(encode_jpeg(image, 20), where="copy"),
    "scaled": lambda image: cv2.resize(image, (60, 60), interpolation=cv2.INTER_AREA),
    "brighter": lambda image: cv2.convertScaleAbs(image, beta=60),
    "more contrast": lambda image: cv2.convertScaleAbs(image, alpha=1.6, beta=-20),
    "mirrored": lambda image: image[:, ::-1],
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_are_found_and_others_are_not(way) -> None:
    images = [face(seed) for seed in range(6)]
    images.append(np.ascontiguousarray(COPIES[way](images[2])))
    thumbnails = np.stack([thumbnail(image) for image in images])
    unit = np.tile(np.eye(8)[0], (7, 1)).astype(np.float32)  # the pixels decide alone
    pairs, pixels = near_duplicates(unit, thumbnails, cosine=0.5, correlation=0.96)
    assert pairs.tolist() == [[2, 6]]
    assert 0.96 <= pixels[0] <= 1 + 1e-6


def test_embeddings_must_agree_too() -> None:
    thumbnails = np.stack([thumbnail(face(1))] * 3)
    unit = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
    pairs, pixels = near_duplicates(unit, thumbnails, cosine=0.7, correlation=0.96)
    assert pairs.tolist() == [[0, 1]]
    assert pixels == pytest.approx(1, abs=1e-5)


def test_blocks_find_what_one_block_finds(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    unit = rng.standard_normal((40, 6)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    base = rng.integers(60, 196, (8, SIDE**2))
    thumbnails = np.clip(base[rng.integers(0, 8, 40)] + rng.normal(0, 10, (40, SIDE**2)), 0, 255)
    thumbnails = thumbnails.astype(np.uint8)
    whole = near_duplicates(unit, thumbnails, cosine=0.1, correlation=0.9)
    # By pairs, with numpy's own correlation; nothing here is cut by exposure or mirrored.
    expected = [
        [i, j]
        for i in range(40)
        for j in range(i + 1, 40)
        if unit[i] @ unit[j] >= 0.1 and np.corrcoef(thumbnails[i], thumbnails[j])[0, 1] >= 0.9
    ]
    assert len(expected) > 10 and whole[0].tolist() == expected
    monkeypatch.setattr("arcface_plus.evaluation.cleaning.duplicates._ENTRIES", 280)
    monkeypatch.setattr("arcface_plus.evaluation.cleaning.duplicates._PAIRS", 5)
    parts = near_duplicates(unit, thumbnails, cosine=0.1, correlation=0.9)
    assert parts[0].tolist() == expected
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-5)


def test_images_of_one_colour_are_copies_of_each_other_alone() -> None:
    grey = [np.full((112, 112, 3), level, dtype=np.uint8) for level in (90, 140)]
    thumbnails = np.stack([*map(thumbnail, grey), thumbnail(face(0))])
    unit = np.ones((3, 1), dtype=np.float32)
    pairs, pixels = near_duplicates(unit, thumbnails, cosine=0.5, correlation=0.96)
    assert pairs.tolist() == [[0, 1]] and pixels == pytest.approx(1, abs=1e-5)


def test_each_copy_is_of_one_that_is_kept() -> None:
    """0–1–2–3 is a chain: 1 is kept, 0 and 2 are its copies; 3 is none of 1, and stays."""
    pairs = np.array([[0, 1], [1, 2], [2, 3]])
    assert choose_kept(pairs, np.array([1, 2, 0, 3])).tolist() == [1, 1, 1, 3]
    assert choose_kept(pairs, np.array([3, 0, 1, 2])).tolist() == [0, 0, 3, 3]
    assert choose_kept(np.empty((0, 2), dtype=np.int64), np.arange(2)).tolist() == [0, 1]


def test_a_black_frame_is_no_likeness() -> None:
    """Tightly cut photographs share the frame that alignment leaves around them, not the face."""
    images = [face(seed) for seed in range(5)]
    images.append(decode_image(encode_jpeg(images[1], 30), where="copy"))
    frame = np.zeros((112, 112), dtype=bool)
    frame[:, :24] = frame[:, 88:] = frame[:20] = True
    for image in images:
        image[:] = np.where(frame[..., None], 0, 150 + image // 12)  # one light, little contrast
    thumbnails = np.stack([thumbnail(image) for image in images])
    whole = np.corrcoef(thumbnails)
    assert whole[0, 1] > 0.96, "strangers, but for the frame"
    unit = np.tile(np.eye(8)[0], (6, 1)).astype(np.float32)
    pairs, _ = near_duplicates(unit, thumbnails, cosine=0.5, correlation=0.96)
    assert pairs.tolist() == [[1, 5]]
