"""MMA: maximise the minimal angle between the rows of a weight, equations (6) and (8).

    loss = −(1/n) Σ_i min_{j≠i} θ_ij

The neighbours are searched without a graph; value and closed-form gradient are then computed
together for the n chosen pairs, so that backward only scales. Memory beyond weight and gradient is
a copy of the unit rows and the scratch of ``nearest``, never n × n.

The functions here see all rows. For class shards on several ranks use ``ring``.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from arcface_plus.regularizers.geometry.angles import (
    pair_angles,
    pair_terms,
    project_rows,
)
from arcface_plus.regularizers.geometry.closed_form import attach_closed_form
from arcface_plus.regularizers.geometry.sphere import (
    UnitRows,
    bad_row_message,
    first_bad_row,
    full_precision,
    matrix_rows,
    row_norms,
)
from arcface_plus.regularizers.nearest.cache import NeighbourCache
from arcface_plus.regularizers.nearest.search import (
    Precision,
    search_few,
    search_self,
)

BadRows = Literal["raise", "nan"]
_PAIRS_AT_ONCE = 512


class MMATerms(NamedTuple):
    """Hold MMA's value and what it was made from.

    ``value`` () float32, or float64 for a float64 weight. ``gradient`` (n, …) of the value, or None
    where it was not asked for. ``angle`` (k,) in radians and ``index`` (k,) of the nearest row, for
    the k = n rows or the k = r sampled ones. Where ``touched`` (t,) is not None, ``gradient`` is
    (t, …): that of those rows, in ascending order, all others being zero.
    """

    value: Tensor
    gradient: Tensor | None
    angle: Tensor
    index: Tensor  # type: ignore[assignment]  # a tuple's own method gives way
    touched: Tensor | None = None


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
        touched_only=True,
    )
    return attach_gradient(weight, terms)


def attach_gradient(weight: Tensor, terms: MMATerms) -> Tensor:
    """Return ``terms.value`` with ``terms.gradient`` as its gradient with respect to ``weight``."""
    if terms.gradient is None:
        return terms.value
    return attach_closed_form(weight, terms.value, terms.gradient, terms.touched)


def mma_value_and_gradient(
    weight: Tensor,
    *,
    rows: int | None = None,
    generator: torch.Generator | None = None,
    neighbours: NeighbourCache | None = None,
    precision: Precision = "auto",
    need_gradient: bool = True,
    touched_only: bool = False,
    on_bad_rows: BadRows = "raise",
) -> MMATerms:
    """Compute ``mma_loss`` and its gradient outside autograd; arguments and errors as there.

    ``touched_only`` keeps the gradient of sampled rows to the few rows that get any (``touched``).
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
    return shaped_as(weight, terms, touched_only=touched_only)


def shaped_as(weight: Tensor, terms: MMATerms, *, touched_only: bool) -> MMATerms:
    """Return ``terms`` with the gradient shaped as the weight, or as its touched rows."""
    gradient, touched = terms.gradient, terms.touched
    if gradient is None:
        return terms
    if touched is not None and not touched_only:
        whole = gradient.new_zeros(weight.shape[0], gradient.shape[1])
        gradient, touched = whole.index_copy_(0, touched, gradient), None
    gradient = gradient.view(gradient.shape[0], *weight.shape[1:])
    return terms._replace(gradient=gradient, touched=touched)


def pick_rows(terms: MMATerms, rows: Tensor) -> MMATerms:
    """Return ``terms`` with the gradient of ``rows`` (p,) alone, as (p, …), touched or not."""
    if terms.gradient is None or terms.touched is None:
        picked = None if terms.gradient is None else terms.gradient[rows]
        return terms._replace(gradient=picked)
    at = torch.searchsorted(terms.touched, rows).clamp_max_(max(0, len(terms.touched) - 1))
    picked = terms.gradient.new_zeros(len(rows), *terms.gradient.shape[1:])
    if len(terms.touched):
        hit = (terms.touched[at] == rows).nonzero().flatten()
        picked[hit] = terms.gradient[at[hit]]
    return terms._replace(gradient=picked, touched=None)


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
    unit = UnitRows(matrix / norms[:, None])
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
    angle = add_pairs(gradient, unit, own, index, own, index)
    project_all(gradient, unit, norms, -1 / n)
    return MMATerms(mean_angle(angle), gradient, angle, index)


def _some_rows(
    matrix: Tensor,
    norms: Tensor,
    rows: int,
    generator: torch.Generator | None,
    precision: Precision,
    need_gradient: bool,
) -> MMATerms:
    unit = UnitRows(matrix, norms)
    own = sample_rows(len(unit), rows, generator).to(matrix.device)
    index = search_few(unit.take(own), unit, own, precision=precision)
    if not need_gradient:
        angle = pair_angles(unit.take(own), unit.take(index))
        return MMATerms(mean_angle(angle), None, angle, index)
    touched, at = torch.unique(torch.cat([own, index]), return_inverse=True)
    gradient = unit.take(touched).zero_()
    angle = add_pairs(gradient, unit, own, index, *at.chunk(2))
    project_all(gradient, unit, norms, -1 / rows, touched)
    return MMATerms(mean_angle(angle), gradient, angle, index, touched)


def mean_angle(angle: Tensor) -> Tensor:
    """Return −mean of ``angle`` (k,), summed in float64."""
    return angle.mean(dtype=torch.float64).neg_().to(angle.dtype)


def add_pairs(
    gradient: Tensor, unit: UnitRows, own: Tensor, other: Tensor, own_at: Tensor, other_at: Tensor
) -> Tensor:
    """Add dθ/dŵ, not yet projected, of the pairs (own, other) (k,) of ``unit``'s rows; return θ.

    ``own_at`` and ``other_at`` (k,) are where those rows are in ``gradient``.
    """
    angle = torch.empty(own.shape, dtype=unit.dtype, device=unit.device)
    for low in range(0, len(own), _PAIRS_AT_ONCE):
        part = slice(low, low + _PAIRS_AT_ONCE)
        i, j = own[part], other[part]
        pairs = pair_terms(unit.take(i), unit.take(j), i, j)
        angle[part] = pairs.angle
        gradient.index_add_(0, own_at[part], pairs.pull_a)
        gradient.index_add_(0, other_at[part], pairs.pull_b)
    return angle


def project_all(
    gradient: Tensor, unit: UnitRows, norms: Tensor, scale: float, touched: Tensor | None = None
) -> None:
    """Make ``gradient`` (t, d) that of the rows ``touched`` (t,), or of all rows, in place."""
    for low in range(0, len(gradient), _PAIRS_AT_ONCE):
        part = slice(low, min(len(gradient), low + _PAIRS_AT_ONCE))
        if touched is None:
            project_rows(gradient[part], unit.block(low, part.stop), norms[part], scale)
        else:
            project_rows(gradient[part], unit.take(touched[part]), norms[touched[part]], scale)
