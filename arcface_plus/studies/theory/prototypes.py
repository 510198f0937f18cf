"""The angle from a class to its nearest other class, for classes spread uniformly (Prop. 1).

``losses/theory/uniform_prediction.py`` has the exact expectation. Here are its approximations and
what sampling gives, with every neighbour searched exactly. Angles are in radians.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from arcface_plus.losses.head.initial import initial_class_weights
from arcface_plus.losses.theory.uniform_law import (
    check_classes,
    check_dim,
    log_angle_density,
    log_cap_fraction,
)
from arcface_plus.regularizers.geometry.angles import pair_angles
from arcface_plus.regularizers.geometry.sphere import UnitRows, full_precision, row_norms
from arcface_plus.regularizers.nearest.search import nearest_neighbors, search_few
from arcface_plus.studies.theory.uniform_caps import cap_angle

_BLOCK = 8192  # prototypes made at once: a multiple of the blocks they are drawn in
_PAIRS_AT_ONCE = 1024


def extreme_value_angle(classes: int, dim: int) -> float:
    """Return E[θ] by extreme values: a Gumbel law where ln F is straight about F = 1/(C − 1).

    θ* − γ/h with F(θ*) = 1/(C − 1), h = (ln F)′(θ*) and Euler's γ. At d = 512 within 0.1° of the
    exact expectation from C = 100 on. It needs many dimensions: at d = 3 it is a fifth too small.
    """
    check_classes(classes)
    if classes == 2:
        raise ValueError("classes is 2, but the law of extremes needs at least 3 classes.")
    at = cap_angle(1 / (classes - 1), dim)
    rate = math.exp(float(log_angle_density(at, dim)) - float(log_cap_fraction(at, dim)))
    return at - np.euler_gamma / rate


def unit_prototypes(seed: int, lo: int, hi: int, dim: int) -> Tensor:
    """Return prototypes ``lo`` to ``hi`` − 1 of a uniform set as unit rows (hi − lo, d) float32.

    Normalised Gaussian rows, drawn by (seed, block) as initial class weights are, so that any part
    of a set is the same however it is cut.
    """
    rows = initial_class_weights(seed, lo, hi, dim, std=1.0)
    return rows.div_(row_norms(rows)[:, None])


def sample_nearest_angles(
    classes: int,
    dim: int,
    *,
    rows: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Draw ``classes`` prototypes and return their angles to the nearest other one, float64.

    All of them, (C,), which holds the C × d prototypes and one search; or, with ``rows=r``, those
    of the first r alone, (r,): prototypes are then made block by block and never all held, and the
    angles equal the first r of the whole set. Neighbours are exact in both.

    Raises ValueError for fewer than two classes, or ``rows`` outside 1 to C.
    """
    check_classes(classes)
    check_dim(dim)
    if rows is not None and not 1 <= rows <= classes:
        raise ValueError(f"rows is {rows}, but must lie in 1 to the {classes} classes.")
    if rows is None:
        unit = unit_prototypes(seed, 0, classes, dim)
        return _angles_between(unit, unit, nearest_neighbors(unit).index)
    queries = unit_prototypes(seed, 0, rows, dim)
    own = torch.arange(rows)
    nearest = np.full(rows, math.inf)
    # A last block of one would leave a query alone in it: it joins the block before.
    for low, high in itertools.pairwise([*range(0, classes - 1, _BLOCK), classes]):
        block = unit_prototypes(seed, low, high, dim)
        inside = torch.where((own >= low) & (own < high), own - low, -1)
        with full_precision(block.device):
            index = search_few(queries, UnitRows(block), inside)
        np.minimum(nearest, _angles_between(queries, block, index), out=nearest)
    return nearest


def _angles_between(rows: Tensor, columns: Tensor, index: Tensor) -> np.ndarray:
    parts = [
        pair_angles(a.double(), columns[i].double())
        for a, i in zip(rows.split(_PAIRS_AT_ONCE), index.split(_PAIRS_AT_ONCE), strict=True)
    ]
    return torch.cat(parts).numpy()
