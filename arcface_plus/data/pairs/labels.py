"""Labels of pairs: True for the same person."""

from __future__ import annotations

from typing import Any

import numpy as np


def boolean_labels(labels: Any, *, where: str) -> np.ndarray:
    """Return ``labels`` as (N,) bool; 0 and 1 are accepted. Raises ValueError naming ``where``."""
    # NumPy would walk lists in lists, of which a few bytes of a pickle can make any number.
    if isinstance(labels, list | tuple) and any(isinstance(each, list | tuple) for each in labels):
        raise ValueError(f"{where}: labels must be one list of booleans, but are lists in a list.")
    try:
        array = np.asarray(labels)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: labels must be one list of booleans: {error}.") from error
    if array.ndim != 1 or array.dtype.kind not in "biu" or not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"{where}: labels must be one list of booleans (True: the same person), but are "
            f"{array.dtype} of shape {array.shape}, such as {array.ravel()[:3].tolist()}."
        )
    return array.astype(bool)
