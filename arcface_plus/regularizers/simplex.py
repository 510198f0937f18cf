"""The optimum where there is room for it: n points at equal angles in n − 1 dimensions or more."""

from __future__ import annotations

import torch
from torch import Tensor


def simplex(
    points: int,
    dim: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return unit rows (points, dim) whose cosines are all −1/(points − 1), eq. (4), MMA paper.

    The largest smallest angle there is for ``dim`` ≥ ``points`` − 1, eq. (3). ``generator`` turns
    the configuration at random (uniformly over rotations), else it is a fixed one with zeros in the
    dimensions left over. Raises ValueError for fewer than two points or too few dimensions.
    """
    if points < 2:
        raise ValueError(f"points is {points}, but angles need at least 2.")
    if dim < points - 1:
        raise ValueError(
            f"{points} points at equal angles need at least {points - 1} dimensions, but dim is "
            f"{dim}; ask a solver of the Tammes problem instead."
        )
    # Ŵ = VΛ^½ with the eigenvectors V of eq. (4) for n/(n − 1): any basis of the rows of sum zero.
    k = torch.arange(1, points, dtype=torch.float64)
    helmert = torch.ones(points, points - 1, dtype=torch.float64).triu()
    helmert[1:].diagonal().copy_(-k)
    rows = torch.zeros(points, dim, dtype=torch.float64)
    rows[:, : points - 1] = helmert / (k * (k + 1)).sqrt() * (points / (points - 1)) ** 0.5
    if generator is not None:
        rows = rows @ _rotation(dim, generator)
    return rows.to(dtype)


def _rotation(dim: int, generator: torch.Generator) -> Tensor:
    """Return a rotation (dim, dim), uniformly distributed."""
    normal = torch.randn(dim, dim, generator=generator, dtype=torch.float64,
                         device=generator.device).cpu()  # fmt: skip
    q, r = torch.linalg.qr(normal)
    q = q * r.diagonal().sign()  # QR alone is not uniform
    if torch.linalg.slogdet(q).sign < 0:
        q[:, 0] *= -1
    return q
