"""MMA: maximise the minimal angle between the rows of a weight, equations (6) and (8).

    loss = −(1/n) Σ_i min_{j≠i} θ_ij

The functions here see all rows: they are those of ``sharded.mma`` in a group of this process alone.
Memory beyond weight and gradient is a copy of the unit rows and the scratch of ``nearest``, never
n × n.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arcface_plus.distributed import ALONE
from arcface_plus.regularizers.nearest.cache import NeighbourCache
from arcface_plus.regularizers.nearest.search import Precision
from arcface_plus.regularizers.sharded.mma import (
    BadRows,
    MMATerms,
    sharded_mma_loss,
    sharded_mma_value_and_gradient,
)


def mma_loss(
    weight: Tensor,
    *,
    rows: int | None = None,
    generator: torch.Generator | None = None,
    neighbours: NeighbourCache | None = None,
    precision: Precision = "auto",
) -> Tensor:
    """Return minus the mean angle (radians) from each row to its nearest other row, eq. (6).

    ``weight`` (n, …) of any floating dtype, n ≥ 2; half precision is computed in float32. Both rows
    of a pair get gradient, of norm 1/‖w‖ per pair, eq. (8). ``rows=r`` takes the mean over r rows
    drawn without replacement by ``generator``, each still against all others: an unbiased estimate
    of value and gradient. ``neighbours`` reuses indices between searches. ``precision`` as
    ``nearest_neighbors``.

    Raises ValueError for fewer than two rows and, on the CPU, for a row that is zero or not finite,
    naming it; on a GPU the loss is then NaN. The gradient cannot be differentiated again.
    """
    return sharded_mma_loss(
        weight,
        group=ALONE,
        rows=rows,
        generator=generator,
        neighbours=neighbours,
        precision=precision,
    )


def mma_value_and_gradient(
    weight: Tensor,
    *,
    rows: int | None = None,
    generator: torch.Generator | None = None,
    precision: Precision = "auto",
    need_gradient: bool = True,
    on_bad_rows: BadRows = "raise",
) -> MMATerms:
    """Compute ``mma_loss`` and its gradient outside autograd; arguments and errors as there.

    ``on_bad_rows="nan"`` returns NaN instead of raising, for callers that gate steps themselves.
    """
    return sharded_mma_value_and_gradient(
        weight,
        group=ALONE,
        rows=rows,
        generator=generator,
        precision=precision,
        need_gradient=need_gradient,
        on_bad_rows=on_bad_rows,
    )


def nearest_angles(weight: Tensor, *, precision: Precision = "auto") -> MMATerms:
    """Return each row's angle (n,) to its nearest other row, and which row that is, for logs."""
    return mma_value_and_gradient(weight, precision=precision, need_gradient=False)
