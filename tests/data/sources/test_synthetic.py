"""Images without faces."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from arcface_plus.data.sources.synthetic import SyntheticFaces


def test_images_are_made_on_demand_and_always_the_same():
    faces = SyntheticFaces(5, 4, size=48, seed=1)
    backwards = [faces.read(i) for i in reversed(range(20))][::-1]
    for index, (image, label) in enumerate(backwards):
        again, label_again = SyntheticFaces(5, 4, size=48, seed=1).read(index)
        np.testing.assert_array_equal(image, again)
        assert label == label_again == faces.labels[index] == index // 4
        assert image.shape == (48, 48, 3) and image.dtype == np.uint8


def test_images_of_a_class_are_alike_and_no_two_are_the_same():
    faces = SyntheticFaces(6, 4, size=32)
    images = np.stack([faces.read(i)[0] for i in range(len(faces))]).astype(float)
    assert len(np.unique(images.reshape(24, -1), axis=0)) == 24
    flat = images.reshape(24, -1)
    distance = np.abs(flat[:, None] - flat[None]).mean(axis=2)
    same = faces.labels[:, None] == faces.labels[None]
    assert distance[same].max() < 20 < distance[~same].min()


def test_seed_changes_every_image():
    one, two = SyntheticFaces(3, 2, size=16, seed=1), SyntheticFaces(3, 2, size=16, seed=2)
    assert all(not np.array_equal(one.read(i)[0], two.read(i)[0]) for i in range(6))


def test_no_image_shares_a_stream_with_its_pattern(monkeypatch):
    """NumPy takes the key [seed, class, 0] for [seed, class]."""
    states, make = [], np.random.default_rng

    def spy(key):
        generator = make(key)
        states.append(generator.bit_generator.state["state"]["state"])
        return generator

    monkeypatch.setattr(np.random, "default_rng", spy)
    faces = SyntheticFaces(3, 4, size=16)
    for index in range(12):
        faces.read(index)
    assert len(set(states)) == 3 + 12  # a pattern a class, a noise an image


def test_ten_million_classes_cost_nothing():
    faces = SyntheticFaces(10_000_000, 100)
    assert len(faces) == 1_000_000_000
    image, label = faces.read(999_999_999)
    assert label == 9_999_999 and image.shape == (112, 112, 3)
    assert "999999999" in faces.describe(999_999_999)


@pytest.mark.parametrize("index", [-1, 6, 100])
def test_no_image_beyond_the_last(index):
    with pytest.raises(IndexError):
        SyntheticFaces(3, 2, size=16).read(index)


def test_workers_may_receive_it():
    faces = SyntheticFaces(3, 2, size=16, seed=4)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(faces)).read(5)[0], faces.read(5)[0])
