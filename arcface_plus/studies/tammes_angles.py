"""The smallest angle of a configuration, and a lower bound of it that rounding cannot break.

Shapes: n points as rows of d entries, float64.
"""

from __future__ import annotations

import math

import numpy as np

_UNIT_ROUNDOFF = 2.0**-53
_ROWS_AT_ONCE = 512
_COSINE_SLACK = 1e-9  # pairs this far below the largest cosine cannot be the closest, see below


def smallest_angle(rows: np.ndarray) -> float:
    """Return the smallest angle (radians) between two of the ``rows`` (n, d), n ≥ 2.

    From the nearer chord, so that no digits are lost at small angles or near π.
    """
    return _smallest(rows, certain=False)


def certified_angle(rows: np.ndarray) -> float:
    """Return an angle (radians) that no two of the ``rows`` (n, d) float64 are closer than.

    The rows are taken as the exact numbers they are; what is bounded is the angle between their
    directions. From the chord computed in float64 is taken off all that rounding may have added: at
    most (d + 6) units of roundoff of the chord, and for both rows by how much their lengths differ
    from 1, at most what is computed plus d + 6 units. Assumed is IEEE arithmetic and an arcsine
    that errs by at most 4 units. This certifies a configuration, not that it is the best there is.

    Raises ValueError for rows that are not near unit length, where the bound would say little.
    """
    return _smallest(rows, certain=True)


def _smallest(rows: np.ndarray, *, certain: bool) -> float:
    dim = rows.shape[1]
    error = (dim + 6) * _UNIT_ROUNDOFF
    off = np.abs(np.sqrt((rows * rows).sum(1)) - 1) + error
    if not off.max() < 1e-9:
        row = int(np.argmax(np.where(off < 1e-9, 0, 1)))
        raise ValueError(f"row {row} is not of unit length; divide the rows by their norms.")
    largest = max(float(block.max()) for _, block in _cosines(rows))
    angle = math.pi
    for low, block in _cosines(rows):
        # Both cosines err by less than 1e-9 for the dimensions there are, lengths included.
        i, j = np.nonzero(block > largest - _COSINE_SLACK - 4 * off.max())
        a, b = rows[i + low], rows[j]
        slack = (off[i + low] + off[j]) if certain else 0.0
        relative = error if certain else 0.0
        if largest < 0:  # obtuse: from what is missing to π
            missing = np.sqrt(((a + b) ** 2).sum(1)) * (1 + relative) + slack
            found = math.pi - 2 * np.arcsin(np.minimum(missing / 2, 1))
        else:
            chord = np.sqrt(((a - b) ** 2).sum(1)) * (1 - relative) - slack
            found = 2 * np.arcsin(np.clip(chord / 2, 0, 1))
        if found.size:
            angle = min(angle, float(found.min()))
    return max(0.0, angle - (8 * _UNIT_ROUNDOFF * math.pi if certain else 0.0))


def _cosines(rows: np.ndarray):  # type: ignore[no-untyped-def]
    """Yield the cosines of blocks of rows with all rows, −2 for a row with itself."""
    for low in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[low : low + _ROWS_AT_ONCE] @ rows.T
        block[np.arange(len(block)), low + np.arange(len(block))] = -2
        yield low, block
