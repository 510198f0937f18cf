from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.data.faces.face import suppress


def overlap(a: np.ndarray, b: np.ndarray, of_smaller: bool) -> float:
    """Count the whole pixels of both boxes one by one."""

    def pixels(box: np.ndarray) -> set[tuple[int, int]]:
        x1, y1, x2, y2 = map(int, box)
        return {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)}

    p, q = pixels(a), pixels(b)
    return len(p & q) / (min(len(p), len(q)) if of_smaller else len(p | q))


@pytest.mark.parametrize("of_smaller", [False, True])
def test_suppression_by_counted_pixels(of_smaller):
    rng = np.random.default_rng(1)
    for _ in range(20):
        corner = rng.integers(0, 20, (12, 2))
        boxes = np.hstack([corner, corner + rng.integers(0, 15, (12, 2))]).astype(float)
        scores = rng.permutation(12) / 12
        kept: list[int] = []
        for i in np.argsort(-scores):
            if all(overlap(boxes[i], boxes[j], of_smaller) <= 0.4 for j in kept):
                kept.append(int(i))
        assert suppress(boxes, scores, 0.4, of_smaller=of_smaller).tolist() == kept


def test_no_boxes():
    assert suppress(np.empty((0, 4)), np.empty(0), 0.5).tolist() == []


def test_size_is_the_shorter_side(new_face):
    face = new_face(10, 20, 30)
    face.box[3] += 5
    assert face.size == 30
