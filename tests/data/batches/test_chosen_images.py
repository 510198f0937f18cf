"""Chosen images: the same whoever reads them; unreadable ones give way to their class."""

from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.data.batches.augmentation import augment, chosen_draws
from arcface_plus.data.batches.chosen_images import ChosenImages
from arcface_plus.data.batches.score_sampling import ClassMembers
from arcface_plus.data.settings import AugmentConfig, DataConfig
from arcface_plus.data.sources.synthetic import SyntheticFaces

CHANGES = AugmentConfig(affine=1.0, rotate=10, noise=5)


class Source(SyntheticFaces):
    bad: tuple[int, ...] = ()

    def read(self, index: int) -> tuple[np.ndarray, int]:
        if index in self.bad:
            raise ValueError(f"{self.describe(index)} is damaged")
        return super().read(index)


def reader(source: Source | None = None, **settings) -> ChosenImages:
    source = source or Source(5, 4, size=24)
    config = DataConfig(
        source="synthetic", num_classes=5, size=24, workers=2, augment=CHANGES, **settings
    )
    return ChosenImages(source, config, ClassMembers(source.labels), seed=3)


def test_images_are_those_of_their_keys_however_they_are_split() -> None:
    indices = np.array([4, 17, 4, 0, 9])
    whole = reader().start(6, indices)()
    assert whole.step == 6 and whole.quarantined == []
    assert whole.indices.tolist() == indices.tolist()
    assert whole.labels.tolist() == [1, 4, 1, 0, 2]
    for slot, index in enumerate(indices):
        image, _ = Source(5, 4, size=24).read(int(index))
        want = augment(image, CHANGES, next(chosen_draws(CHANGES, 24, 3, 6, [index], slot)))
        assert np.array_equal(whole.images[slot].numpy(), want)
    assert not np.array_equal(whole.images[0], whole.images[2]), "twice, but in two forms"
    parts = [reader().start(6, indices[lo:hi], lo)() for lo, hi in ((0, 2), (2, 5))]
    assert np.array_equal(np.concatenate([p.images for p in parts]), whole.images)


def test_a_rank_may_have_no_image_to_read() -> None:
    batch = reader().start(6, np.array([], dtype=np.int64))()
    assert batch.images.shape == (0, 24, 24, 3) and batch.labels.dtype == batch.indices.dtype
    assert len(batch.indices) == 0


def test_unreadable_images_give_way_to_the_next_of_their_class() -> None:
    source = Source(5, 4, size=24)
    source.bad = (4, 5, 19)
    batch = reader(source, on_bad_image="quarantine").start(2, np.array([4, 19, 8]))()
    assert batch.indices.tolist() == [6, 16, 8] and batch.labels.tolist() == [1, 4, 2]
    assert [index for index, _ in batch.quarantined] == [4, 5, 19]
    assert "synthetic image 4" in batch.quarantined[0][1]


def test_unreadable_images_stop_the_run_by_default() -> None:
    source = Source(5, 4, size=24)
    source.bad = (4,)
    with pytest.raises(ValueError, match=r"synthetic image 4 .*damaged \(step 2\); remove"):
        reader(source).start(2, np.array([3, 4]))()


def test_a_class_without_a_readable_image_stops_the_run() -> None:
    source = Source(5, 4, size=24)
    source.bad = (4, 5, 6, 7)
    with pytest.raises(ValueError, match="step 2: none of 4 images can be read"):
        reader(source, on_bad_image="quarantine").start(2, np.array([4]))()


def test_images_that_are_not_square_are_refused() -> None:
    class Wide(Source):
        def read(self, index: int) -> tuple[np.ndarray, int]:
            return np.zeros((24, 30, 3), dtype=np.uint8), 0

    with pytest.raises(ValueError, match="30×24"):
        reader(Wide(5, 4, size=24)).start(0, np.array([1]))()
