"""Keep a share of each class for testing: always the same images, whatever the run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def split_by_class(
    labels: np.ndarray, class_names: Sequence[str], share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices ``(train, test)`` of a split, each ascending, disjoint, together all.

    ``labels`` (n,) counts ``class_names``. Of a class with n images, ``share · n`` rounded, at
    least 1 and at most n − 1, are for testing. Which ones depends on the class's name and n alone:
    neither seed nor the other classes change it.

    Raises ValueError naming a class with fewer than two images.
    """
    assert 0 < share < 1
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=len(class_names))
    is_test = np.zeros(len(labels), dtype=bool)
    for name, members in zip(class_names, np.split(order, np.cumsum(counts)[:-1]), strict=True):
        if len(members) < 2:
            raise ValueError(
                f"data.holdout keeps at least one image of each class for testing, but {name} has "
                f"{len(members)}: nothing would be left to train on. Add images, or remove it."
            )
        wanted = min(len(members) - 1, max(1, int(share * len(members) + 0.5)))
        is_test[members[_shuffled(name, len(members))[:wanted]]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _shuffled(name: str, count: int) -> list[int]:
    """Return ``range(count)`` in an order keyed by ``name``, the same with every NumPy version."""
    return sorted(range(count), key=lambda i: hashlib.sha256(f"{i}/{name}".encode()).digest())
