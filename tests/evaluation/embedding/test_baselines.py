from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.evaluation.embedding.baselines import raw_pixel_embeddings


def test_equals_the_loop():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    rows = raw_pixel_embeddings(images)
    assert rows.shape == (3, 24) and rows.dtype == np.float32
    for image, row in zip(images, rows, strict=True):
        grey = [[sum(map(int, pixel)) / 3 for pixel in line] for line in image]
        mean = sum(map(sum, grey)) / 24
        expected = [line[x] - mean + line[5 - x] - mean for line in grey for x in range(6)]
        assert np.allclose(row, expected, atol=1e-4)


def test_mirror_images_are_one():
    image = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    a, b = raw_pixel_embeddings([image, image[:, ::-1]])
    assert np.allclose(a, b, atol=1e-4)


def test_bad_images():
    image = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="image 1 is 6 x 6"):
        raw_pixel_embeddings([image, np.zeros((6, 6, 3), np.uint8)])
    with pytest.raises(ValueError, match="image 1 has one colour"):
        raw_pixel_embeddings([image, np.full((4, 6, 3), 7, np.uint8)])
    with pytest.raises(ValueError, match="no images"):
        raw_pixel_embeddings([])
