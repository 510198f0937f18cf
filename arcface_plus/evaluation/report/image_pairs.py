"""The pairs a model gets most wrong, with their photographs inside the page."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import cv2
import numpy as np

from arcface_plus.data.images import jpeg_uri, shrunk
from arcface_plus.data.lazy_images import describe_image
from arcface_plus.data.pairs.sets import PairSet
from arcface_plus.evaluation.report.words import shortened

MOST_SHOWN = 8
_SIDE = 160  # pixels of the longer side: sharp at the size shown, small in the file
_QUALITY = 85


def hardest_pairs(
    pairs: PairSet, distances: np.ndarray, limits: np.ndarray, *, genuine: bool
) -> list[dict[str, Any]]:
    """Return the wrong decisions of one kind that are furthest beyond their threshold, worst first.

    ``limits``: (N,) threshold of each pair's fold, constant within folds. At most ``MOST_SHOWN``,
    each with its ``number`` (from 1), ``distance``, ``threshold`` and two ``photographs``: a
    ``name``, and a ``source``, which is a data URI, or the ``problem`` there is.
    """
    accepted = distances < limits
    wrong = np.flatnonzero((pairs.is_same == genuine) & (accepted != genuine))
    beyond = np.abs(distances - limits)[wrong]
    chosen = wrong[np.argsort(-beyond, kind="stable")][:MOST_SHOWN]
    return [
        {
            "number": int(row) + 1,
            "distance": float(distances[row]),
            "threshold": float(limits[row]),
            "photographs": [
                _photograph(pairs, int(side[row])) for side in (pairs.index_a, pairs.index_b)
            ],
        }
        for row in chosen
    ]


def _photograph(pairs: PairSet, index: int) -> dict[str, str]:
    person = None if pairs.names is None else pairs.names[index]
    name = shortened(PurePath(describe_image(pairs.images, index)).name)
    if person is not None and person not in name:
        name = f"{shortened(person)}, {name}"
    try:
        rgb = np.asarray(pairs.images[index])
        source = jpeg_uri(shrunk(rgb, _SIDE), _QUALITY)
    except (ValueError, OSError, cv2.error) as error:
        # The measurement is done; a photograph that is gone since should not cost it. The page
        # says so in the photograph's place.
        return {"name": name, "problem": f"not readable: {type(error).__name__}"}
    return {"name": name, "source": source}
