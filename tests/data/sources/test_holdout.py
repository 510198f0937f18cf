"""A share of each class kept for testing: disjoint, the same everywhere, never everything."""

from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.data.sources.holdout import split_by_class


def split(counts: list[int], share: float, names: list[str] | None = None):
    labels = np.repeat(np.arange(len(counts)), counts)
    names = names or [f"class {i}" for i in range(len(counts))]
    return labels, *split_by_class(labels, names, share)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.5, 0.9, 0.99])
def test_every_class_is_shared_out(share):
    counts = [2, 3, 4, 5, 10, 11, 99, 100, 101]
    labels, train, test = split(counts, share)
    together = np.sort(np.concatenate([train, test]))
    np.testing.assert_array_equal(together, np.arange(len(labels)))
    assert (np.diff(train) > 0).all() and (np.diff(test) > 0).all()
    for label, count in enumerate(counts):
        kept = int((labels[test] == label).sum())
        assert 1 <= kept <= count - 1
        assert abs(kept - share * count) <= max(1, 0.5)


def test_number_is_rounded():
    _, _, test = split([10, 100, 7, 14], 0.25)
    assert np.bincount(np.searchsorted([10, 110, 117], test, side="right")).tolist() == [
        3,
        25,
        2,
        4,
    ]


def test_choice_depends_on_name_and_count_alone():
    names = ["anna", "bea", "cleo"]
    labels, _, test = split([20, 30, 40], 0.3, names)
    # Another class before, others of another size, and images in another order of classes.
    more, _, other = split([7, 20, 50, 40], 0.3, ["aaron", "anna", "bea", "cleo"])
    np.testing.assert_array_equal(test[labels[test] == 0], other[more[other] == 1] - 7)
    np.testing.assert_array_equal(test[labels[test] == 2] - 50, other[more[other] == 3] - 77)
    mixed = np.tile([0, 1], 20)
    _, chosen = split_by_class(mixed, ["anna", "zoe"], 0.3)
    np.testing.assert_array_equal(chosen[mixed[chosen] == 0] // 2, test[labels[test] == 0])


def test_choice_is_pinned():
    """A run of next year must be tested on the images that a run of today has not seen."""
    _, _, test = split([12], 0.25, ["anna"])
    assert test.tolist() == [0, 2, 3]


def test_choice_is_spread_over_the_class():
    _, _, test = split([1000], 0.3, ["anna"])
    tenths = np.bincount(test // 100, minlength=10)
    assert tenths.sum() == 300 and tenths.min() > 15 and tenths.max() < 45
    _, _, other = split([1000], 0.3, ["bea"])
    assert 50 < len(np.intersect1d(test, other)) < 130  # 90 where names do not matter to another


def test_a_class_of_one_image_is_named():
    with pytest.raises(ValueError, match=r"class 1 has 1: nothing would be left"):
        split([2, 1, 2], 0.1)
