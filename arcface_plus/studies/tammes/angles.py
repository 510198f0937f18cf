"""The smallest angle of a configuration, and a lower bound of it that rounding cannot break.

Shapes: n points as rows of d entries, float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

_UNIT_ROUNDOFF = 2.0**-53
_ENTRIES_AT_ONCE = 1 << 22
_COSINE_SLACK = 1e-9  # pairs this far below the largest cosine cannot be the closest, see below
_STEEP = 0.5  # up to this cosine, the arccosine at most doubles what rounding did to it


def smallest_angle(rows: np.ndarray) -> float:
    """Return the smallest angle (radians) between two of the ``rows`` (n, d), n ≥ 2.

    From chords where the arccosine would lose digits, at small angles and near π.
    """
    return _smallest(rows, certain=False)


def certified_angle(rows: np.ndarray) -> float:
    """Return an angle (radians) that no two of the ``rows`` (n, d) float64 are closer than.

    The rows are taken as the exact numbers they are; what is bounded is the angle between their
    directions. From what float64 gives is taken off all that rounding may have added: to a cosine
    or a chord at most d + 6 units of roundoff (absolute and relative), and for both rows by how
    much their lengths differ from 1, at most what is computed plus d + 6 units. Assumed is IEEE
    arithmetic in any order of summation, and inverse functions that err by at most 4 units. This
    certifies a configuration, not that it is the best there is.

    Raises ValueError for rows that are not near unit length, where the bound would say little.
    """
    return _smallest(rows, certain=True)


def _smallest(rows: np.ndarray, *, certain: bool) -> float:
    error = (rows.shape[1] + 6) * _UNIT_ROUNDOFF
    off = np.abs(np.sqrt((rows * rows).sum(1)) - 1) + error
    if not off.max() < 1e-9:
        row = int(np.argmax(np.where(off < 1e-9, 0, 1)))
        raise ValueError(f"row {row} is not of unit length; divide the rows by their norms.")
    largest = max(float(block.max()) for _, block in _cosines(rows))
    if abs(largest) <= _STEEP:
        above = error + 2 * float(off.max()) if certain else 0.0
        angle = math.acos(largest + above)
    else:
        angle = _from_chords(rows, largest, off, error, certain=certain)
    return max(0.0, angle - (8 * _UNIT_ROUNDOFF * math.pi if certain else 0.0))


def _from_chords(
    rows: np.ndarray, largest: float, off: np.ndarray, error: float, *, certain: bool
) -> float:
    """Return the smallest angle of the pairs of about the ``largest`` cosine, or its bound.

    Twice the arctangent of their chord over that of one row and the other's negative.
    """
    angle = math.pi
    relative = error if certain else 0.0
    for i, j in _closest_pairs(rows, largest - _COSINE_SLACK - 4 * float(off.max())):
        slack = (off[i] + off[j]) if certain else 0.0
        apart = np.linalg.norm(rows[i] - rows[j], axis=1) * (1 - relative) - slack
        across = np.linalg.norm(rows[i] + rows[j], axis=1) * (1 + relative) + slack
        angle = min(angle, 2 * float(np.arctan2(np.maximum(apart, 0), across).min()))
    return angle


def _closest_pairs(rows: np.ndarray, above: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs i < j of rows whose cosine is above ``above``, in parts of bounded scratch.

    Both cosines compared err by less than the slack in ``above``, lengths included.
    """
    at_once = max(1, _ENTRIES_AT_ONCE // rows.shape[1])
    for low, block in _cosines(rows):
        i, j = np.nonzero(block > above)
        i += low
        once = i < j
        i, j = i[once], j[once]
        for part in range(0, len(i), at_once):
            yield i[part : part + at_once], j[part : part + at_once]


def _cosines(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the cosines of blocks of rows with all rows, −2 for a row with itself."""
    at_once = max(1, _ENTRIES_AT_ONCE // len(rows))
    for low in range(0, len(rows), at_once):
        block = rows[low : low + at_once] @ rows.T
        own = np.arange(len(block))
        block[own, low + own] = -2
        yield low, block
