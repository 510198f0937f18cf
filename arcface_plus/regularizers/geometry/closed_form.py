"""Losses of a weight's directions whose value and gradient are computed together, in forward.

Backward then only scales, and nothing of size n × n outlives forward. What a loss has to give is
its value at the unit rows and its gradient there; scaling by the rows' norms and taking out what
points along the rows is done here, for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from arcface_plus import devices
from arcface_plus.regularizers.geometry.angles import index_axes, project_rows
from arcface_plus.regularizers.geometry.sphere import (
    bad_row_message,
    first_bad_row,
    full_precision,
    matrix_rows,
    row_norms,
)

# Unit rows (n, d) and whether a gradient is wanted -> value () and gradient (n, d) or None.
AtUnitRows = Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]

# Squared distances below this are taken from the rows' difference: 2 − 2cos has lost their digits.
CANCELLED_BELOW = {torch.float32: 0.012, torch.float64: 1e-6}
COINCIDENT_BELOW = 1e-13  # squared, of float64 rows: this near, a direction is a convention
_PAIR_ENTRIES_AT_ONCE = 1 << 20
_MOST_PAIRS = 16  # to list for one row on average; beyond, float64 products are cheaper


def closed_form_loss(
    weight: Tensor, name: str, at_unit_rows: AtUnitRows, *, picked: Tensor | None = None
) -> Tensor:
    """Return ``at_unit_rows`` of the directions of ``weight`` (n, …) as a differentiable scalar.

    Computed in float32, in float64 for a float64 weight, whatever autocast says. ``picked`` (r,)
    takes those rows alone, all different. ``name`` is what messages call the loss.

    Raises ValueError for fewer than two rows and, on the CPU, for a row that is zero or not finite,
    naming it; on a GPU the loss is then NaN. The gradient cannot be differentiated again.
    """
    rows = matrix_rows(weight if picked is None else weight.detach()[picked])
    if rows.shape[0] < 2:
        raise ValueError(
            f"{name} needs at least two rows, but the weight has {rows.shape[0]}; leave it out."
        )
    need_gradient = torch.is_grad_enabled() and weight.requires_grad
    with full_precision(weight.device):
        norms = row_norms(rows)
        if devices.host_may_look(rows.device) and (bad := first_bad_row(norms)) >= 0:
            raise ValueError(bad_row_message(bad if picked is None else int(picked[bad])))
        unit = rows / norms[:, None]
        value, gradient = at_unit_rows(unit, need_gradient)
        if gradient is None:
            return value
        project_rows(gradient, unit, norms, 1.0)
    shaped = gradient.view(gradient.shape[0], *weight.shape[1:])
    return attach_closed_form(weight, value, shaped, picked)


def pair_blocks(i: Tensor, j: Tensor, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the pairs (i, j) (k,) of rows of ``width`` entries in blocks of bounded scratch."""
    at_once = max(512, _PAIR_ENTRIES_AT_ONCE // width)
    yield from zip(i.split(at_once), j.split(at_once), strict=True)


def is_crowded(pairs: Tensor, rows: Tensor) -> bool:
    """Return whether so many ``pairs`` (k,) of ``rows`` (n, d) are close that float64 pays."""
    return len(pairs) > _MOST_PAIRS * len(rows)


def in_float64(
    terms: AtUnitRows, unit: Tensor, need_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Return ``terms`` of the rows ``unit`` (n, d), computed in float64, in their dtype.

    For rows in a tight cone: nearly all distances are small, but float64 products resolve those
    whose square is above ``COINCIDENT_BELOW``. And for all rows on a GPU: only the device knows how
    long a list of close pairs is, and products need none.
    """
    exact = unit.double()
    norms = torch.linalg.vector_norm(exact, dim=1)
    exact = exact / norms[:, None]
    value, gradient = terms(exact, need_gradient)
    if gradient is not None:  # what is along the rows is most of it: it must go before rounding
        project_rows(gradient, exact, norms, 1.0)
        gradient = gradient.to(unit.dtype)
    return value.to(unit.dtype), gradient


def coinciding_pairs(close: Tensor, low: int) -> Tensor:
    """Return ``close`` (k, m) of rows ``low`` to ``low`` + k, without each row and itself."""
    pairs = close.clone()
    pairs[:, low : low + len(pairs)].fill_diagonal_(False)
    return pairs


def may_hold(mask: Tensor) -> bool:
    """Return whether ``mask`` may hold anywhere: on a GPU always, as nobody looks."""
    return not devices.host_may_look(mask.device) or bool(mask.any())


def add_tangents(
    gradient: Tensor,
    unit: Tensor,
    i: Tensor,
    j: Tensor,
    force: Tensor,
    antipodal: Tensor | None = None,
) -> None:
    """Add ``force`` (k, m) times dθ/dŵ_i of coinciding rows ``unit`` (k, d) to ``gradient`` (k, d).

    A pair is a row ``i`` (k,) and a row ``j`` (m,); those that do not coincide have no force.
    Directions are as ``angles`` has them, by the pair's indices, and so are those of ``antipodal``
    pairs (k, m); but a pair costs one entry instead of d, as there may be n² of them.
    """
    i, j = i[:, None], j[None]
    axis, other = index_axes(i, j, unit.shape[1])
    entry, entry_of_other = unit.gather(1, axis), unit.gather(1, other)
    nearer = entry_of_other.abs() < entry.abs()
    axis, entry = torch.where(nearer, other, axis), torch.where(nearer, entry_of_other, entry)
    length = (1 - entry.square()).clamp_min_(0).sqrt_()
    sign = torch.where(i > j, -1.0, 1.0).to(unit.dtype)
    if antipodal is not None:
        sign = torch.where(antipodal, -1.0, sign)
    # One-dimensional rows have no tangent; all others one at least 0.7 long.
    component = torch.where(length > 0.5, sign / length, 0.0) * force
    gradient.scatter_add_(1, axis, component)


def attach_closed_form(
    weight: Tensor, value: Tensor, gradient: Tensor, touched: Tensor | None = None
) -> Tensor:
    """Return ``value`` () with ``gradient`` as its gradient with respect to ``weight`` (n, …).

    ``gradient`` is (n, …), or (t, …) of the rows ``touched`` (t,) where that is given; a row that
    is there more than once gets the sum.
    """
    return _Attach.apply(weight, value, gradient, touched)


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, value, gradient, touched):
        ctx.save_for_backward(weight, gradient, touched)
        return value.clone()

    @staticmethod
    def backward(ctx, scale):
        weight, gradient, touched = ctx.saved_tensors
        with torch.no_grad():
            scaled = (gradient * scale).to(weight.dtype)
            if touched is not None:
                scaled = torch.zeros_like(weight).index_add_(0, touched, scaled)
        if torch.is_grad_enabled():  # create_graph: a second derivative must fail, not be zero
            scaled = _NotTwice.apply(scaled, weight)
        return scaled, None, None, None


class _NotTwice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gradient, weight):
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError(
            "The gradient of an angular penalty cannot be differentiated again: it is computed in "
            "closed form, without a graph. Leave MMA and its kin out of the loss whose gradient "
            "you differentiate."
        )
