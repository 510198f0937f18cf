"""Rows on the unit sphere: norms without underflow, and unit rows made whole or block by block.

Shapes: n rows of d entries.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from arcface_plus import devices
from arcface_plus.models.autocast import exact_products

# Squares of entries outside this range leave fp32's, so such rows are measured in float64.
_SMALLEST_SAFE_NORM, _LARGEST_SAFE_NORM = 1e-15, 1e15


def matrix_rows(weight: Tensor) -> Tensor:
    """Return ``weight`` (n, …) detached as rows (n, d) of float32, or float64 where it is that.

    Raises ValueError for fewer than two dimensions or an integer dtype.
    """
    if weight.ndim < 2 or not weight.is_floating_point():
        raise ValueError(
            f"weight has shape {tuple(weight.shape)} and dtype {weight.dtype}, but must be "
            "floating-point rows (n, …); pass the layer's weight, not its bias."
        )
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    return weight.detach().flatten(1).to(dtype)


def row_norms(rows: Tensor) -> Tensor:
    """Return the Euclidean norm of each of ``rows`` (n, d), for any finite entries, as (n,)."""
    if not devices.host_may_look(rows.device):
        return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).to(rows.dtype)
    norms = torch.linalg.vector_norm(rows, dim=1)
    if rows.dtype == torch.float32:
        safe = (norms > _SMALLEST_SAFE_NORM) & (norms < _LARGEST_SAFE_NORM)
        if not bool(safe.all()):
            odd = (~safe).nonzero().flatten()
            exact = torch.linalg.vector_norm(rows[odd], dim=1, dtype=torch.float64)
            norms[odd] = exact.to(rows.dtype)
    return norms


def first_bad_row(norms: Tensor) -> int:
    """Return the first row without a direction (zero or not finite), or -1 if there is none.

    Synchronises the host with the device.
    """
    bad = ~(torch.isfinite(norms) & (norms > 0))
    return int(bad.int().argmax()) if bool(bad.any()) else -1


def bad_row_message(row: int) -> str:
    return (
        f"row {row} of the weight is zero or not finite, so it has no direction; "
        "initialise it, or look for the step that made it so."
    )


def sample_rows(total: int, rows: int, generator: torch.Generator | None) -> Tensor:
    """Draw ``rows`` of ``total`` without replacement, on the generator's device (r,)."""
    device = "cpu" if generator is None else generator.device
    return torch.randperm(total, generator=generator, device=device)[:rows]


class UnitRows:
    """Give the unit rows of a matrix (n, d) whole, by block or by index.

    ``UnitRows(unit)`` holds unit rows. ``UnitRows(rows, norms)`` divides ``rows`` by their
    ``norms`` (n,) whenever a block is asked for, with the same bits, so that a search for few rows
    among millions copies nothing.
    """

    def __init__(self, rows: Tensor, norms: Tensor | None = None) -> None:
        self._rows, self._norms = rows, norms
        self.shape, self.dtype, self.device = rows.shape, rows.dtype, rows.device

    def __len__(self) -> int:
        return self.shape[0]

    def block(self, low: int, high: int) -> Tensor:
        """Return unit rows ``low`` to ``high``."""
        rows = self._rows[low:high]
        return rows if self._norms is None else rows / self._norms[low:high, None]

    def take(self, index: Tensor) -> Tensor:
        """Return a copy of the unit rows of ``index``."""
        rows = self._rows.index_select(0, index)
        return rows if self._norms is None else rows.div_(self._norms[index, None])


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keep autocast and matrix products of less than their dtype's precision away from a search."""
    off = torch.autocast(device.type, enabled=False)
    with torch.no_grad(), off, exact_products(device):
        yield
