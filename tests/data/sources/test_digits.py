"""scikit-learn's digits as a data set with a fixed test part."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from arcface_plus.data.sources.digits import DigitImages


@pytest.fixture(scope="module")
def parts() -> tuple[DigitImages, DigitImages]:
    return DigitImages(train=True), DigitImages(train=False)


def test_parts_are_disjoint_and_together_everything(parts):
    train, test = parts
    assert (len(train), len(test)) == (1438, 359)
    for part in parts:
        assert part.num_classes == 10 and part.class_names == [str(i) for i in range(10)]
        assert part.labels.dtype == np.int64 and set(part.labels.tolist()) == set(range(10))
        assert len({part.describe(i) for i in range(len(part))}) == len(part)
    described = {p.describe(i) for p in parts for i in range(len(p))}
    assert described == {f"digit {i} of scikit-learn" for i in range(1797)}
    np.testing.assert_allclose(
        np.bincount(test.labels) / np.bincount(train.labels), 0.25, atol=0.01
    )


def test_images_are_those_of_scikit_learn(parts):
    digits = load_digits()
    for part in parts:
        for index in range(0, len(part), 20):
            image, label = part.read(index)
            assert image.shape == (8, 8, 3) and image.dtype == np.uint8 and isinstance(label, int)
            number = int(part.describe(index).split()[1])
            assert label == digits.target[number]
            assert (image == image[:, :, :1]).all()
            np.testing.assert_allclose(image[:, :, 0], digits.images[number] * 255 / 16, atol=0.5)


def test_what_is_read_may_be_changed(parts):
    image, _ = parts[0].read(3)
    before = image.copy()
    image[:] = 0
    np.testing.assert_array_equal(parts[0].read(3)[0], before)
    with pytest.raises(IndexError):
        parts[0].read(1438)
