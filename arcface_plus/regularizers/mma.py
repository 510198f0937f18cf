"""MMA: maximise the minimal angle between the rows of a weight, equations (6) and (8).

    loss = −(1/n) Σ_i min_{j≠i} θ_ij

The neighbours are searched without a graph; value and closed-form gradient are then computed
together for the n chosen pairs, so that backward only scales. Memory beyond weight and gradient is a
copy of the unit rows and the scratch of ``nearest``, never n × n.

The functions here see all rows. For class shards on several ranks use ``ring``.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from arcface_plus.regularizers.angles import pair_angles, pair_terms, project_rows
from arcface_plus.regularizers.nearest import Precision, search_few, search_self
from arcface_plus.regularizers.neighbour_cache import NeighbourCache
from arcface_plus.regularizers.sphere import (
    UnitRows,
    first_bad_row,
    full_precision,
    matrix_rows,
    row_norms,
)

BadRows = Literal["raise", "nan"]
_PAIRS_AT_ONCE = 512


class MMATerms(NamedTuple):
    """Hold MMA's value and what it was made from.

    ``value`` () float32, or float64 for a float64 weight; ``gradient`` (n, …) of the value, or None
    where it was not asked for; ``angle`` (k,) in radians and ``index`` (k,) of the nearest row, for
    the k = n rows or the k = r sampled ones.
    """

    value: Tensor
    gradient: Tensor | None
    angle: Tensor
    index: Tensor


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
    terms = mma_value_and_gradient(
        weight,
        rows=rows,
        generator=generator,
        neighbours=neighbours,
        precision=precision,
        need_gradient=torch.is_grad_enabled() and weight.requires_grad,
    )
    return attach_gradient(weight, terms)


def attach_gradient(weight: Tensor, terms: MMATerms) -> Tensor:
    """Return ``terms.value`` with ``terms.gradient`` as its gradient with respect to ``weight``."""
    return terms.value if terms.gradient is None else _Attach.apply(weight, *terms[:2])


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, value, gradient):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(gradient)
        ctx.weight_dtype = weight.dtype
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, scale):  # type: ignore[no-untyped-def]
        (gradient,) = ctx.saved_tensors
        return (gradient * scale).to(ctx.weight_dtype), None, None


def mma_value_and_gradient(
    weight: Tensor,
    *,
    rows: int | None = None,
    generator: torch.Generator | None = None,
    neighbours: NeighbourCache | None = None,
    precision: Precision = "auto",
    need_gradient: bool = True,
    on_bad_rows: BadRows = "raise",
) -> MMATerms:
    """Compute ``mma_loss`` and its gradient outside autograd; arguments and errors as there.

    ``on_bad_rows="nan"`` returns NaN instead of raising, for callers that gate steps themselves.
    """
    matrix = matrix_rows(weight)
    check_arguments(matrix.shape[0], rows, neighbours)
    with full_precision(weight.device):
        norms = row_norms(matrix)
        if not matrix.is_cuda and (bad := first_bad_row(norms)) >= 0:
            if on_bad_rows == "raise":
                raise ValueError(bad_row_message(bad))
            return nan_terms(weight, matrix, need_gradient=need_gradient)
        if rows is None or rows >= matrix.shape[0]:
            terms = _all_rows(matrix, norms, neighbours, precision, need_gradient)
        else:
            terms = _some_rows(matrix, norms, rows, generator, precision, need_gradient)
    gradient = None if terms.gradient is None else terms.gradient.view(weight.shape)
    return terms._replace(gradient=gradient)


def nearest_angles(weight: Tensor, *, precision: Precision = "auto") -> MMATerms:
    """Return each row's angle (n,) to its nearest other row, and which row that is, for logs."""
    return mma_value_and_gradient(weight, precision=precision, need_gradient=False)


def check_arguments(total: int, rows: int | None, neighbours: NeighbourCache | None) -> None:
    """Raise ValueError for what MMA cannot be computed of."""
    if total < 2:
        raise ValueError(f"MMA needs at least two rows, but the weight has {total}; leave it out.")
    if rows is not None and rows < 1:
        raise ValueError(f"rows is {rows}, but must be at least 1, or None for all rows.")
    if rows is not None and neighbours is not None:
        raise ValueError("rows and neighbours exclude each other: sampled rows change every step.")


def bad_row_message(row: int) -> str:
    return (
        f"row {row} of the weight is zero or not finite, so it has no direction; "
        "initialise it, or look for the step that made it so."
    )


def nan_terms(weight: Tensor, matrix: Tensor, *, need_gradient: bool) -> MMATerms:
    """Return what MMA is of a weight with a row that has no direction."""
    none = torch.full((matrix.shape[0],), -1, dtype=torch.int64, device=matrix.device)
    gradient = torch.full(weight.shape, math.nan, dtype=matrix.dtype, device=matrix.device)
    value = matrix.new_full((), math.nan)
    angle = matrix.new_full((matrix.shape[0],), math.nan)
    return MMATerms(value, gradient if need_gradient else None, angle, none)


def sample_rows(total: int, rows: int, generator: torch.Generator | None) -> Tensor:
    """Draw ``rows`` of ``total`` without replacement, on the generator's device (r,)."""
    device = "cpu" if generator is None else generator.device
    return torch.randperm(total, generator=generator, device=device)[:rows]


def _all_rows(
    matrix: Tensor,
    norms: Tensor,
    neighbours: NeighbourCache | None,
    precision: Precision,
    need_gradient: bool,
) -> MMATerms:
    unit = UnitRows(matrix, norms)
    del matrix  # a half-precision weight's float32 copy is not needed any more
    n = len(unit)
    if neighbours is None:
        index = search_self(unit, precision=precision)
    else:
        index = neighbours.lookup(n, lambda: search_self(unit, precision=precision))
    own = torch.arange(n, device=index.device)
    if not need_gradient:
        angle = torch.cat([
            pair_angles(unit.take(i), unit.take(j))
            for i, j in zip(own.split(_PAIRS_AT_ONCE), index.split(_PAIRS_AT_ONCE), strict=True)
        ])  # fmt: skip
        return MMATerms(mean_angle(angle), None, angle, index)
    gradient = torch.zeros(unit.shape, dtype=unit.dtype, device=unit.device)
    angle = add_pairs(gradient, unit, own, index)
    for low in range(0, n, _PAIRS_AT_ONCE):
        part = slice(low, min(n, low + _PAIRS_AT_ONCE))
        project_rows(gradient[part], unit.block(low, part.stop), norms[part], -1 / n)
    return MMATerms(mean_angle(angle), gradient, angle, index)


def _some_rows(
    matrix: Tensor,
    norms: Tensor,
    rows: int,
    generator: torch.Generator | None,
    precision: Precision,
    need_gradient: bool,
) -> MMATerms:
    unit = UnitRows(matrix, norms, keep=False)
    own = sample_rows(len(unit), rows, generator).to(matrix.device)
    index = search_few(unit.take(own), unit, own, precision=precision)
    if not need_gradient:
        angle = pair_angles(unit.take(own), unit.take(index))
        return MMATerms(mean_angle(angle), None, angle, index)
    gradient = torch.zeros(unit.shape, dtype=unit.dtype, device=unit.device)
    angle = add_pairs(gradient, unit, own, index)
    project_touched(gradient, unit, norms, torch.cat([own, index]), -1 / rows)
    return MMATerms(mean_angle(angle), gradient, angle, index)


def mean_angle(angle: Tensor) -> Tensor:
    """Return −mean of ``angle`` (k,), summed in float64."""
    return angle.mean(dtype=torch.float64).neg_().to(angle.dtype)


def add_pairs(gradient: Tensor, unit: UnitRows, own: Tensor, other: Tensor) -> Tensor:
    """Add dθ/dŵ, not yet projected, of the pairs (own, other) (k,) of rows of ``unit``; return θ."""
    angle = torch.empty(own.shape, dtype=unit.dtype, device=unit.device)
    for low in range(0, len(own), _PAIRS_AT_ONCE):
        part = slice(low, low + _PAIRS_AT_ONCE)
        i, j = own[part], other[part]
        pairs = pair_terms(unit.take(i), unit.take(j), i, j)
        angle[part] = pairs.angle
        gradient.index_add_(0, i, pairs.pull_a)
        gradient.index_add_(0, j, pairs.pull_b)
    return angle


def project_touched(
    gradient: Tensor, unit: UnitRows, norms: Tensor, touched: Tensor, scale: float
) -> None:
    """Project the ``touched`` rows of ``gradient`` (n, d), each once, in place."""
    for at in torch.unique(touched).split(_PAIRS_AT_ONCE):
        part = gradient.index_select(0, at)
        project_rows(part, unit.take(at), norms.index_select(0, at), scale)
        gradient.index_copy_(0, at, part)
