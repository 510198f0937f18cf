"""The angle between unit rows and its gradient, equations (6) and (8), accurate at any angle.

With the nearer chord c = ‖a − σb‖, σ = ±1, the angle is 2 asin(c/2) or π minus that, and the unit
tangents along which it grows are the projections of ±(a − σb). So nothing is lost where acos loses
everything: a pair's gradient has norm 1/‖w‖ from coincident to antipodal rows.

At angle exactly 0 that direction is a convention: the rows move apart along a tangent picked from
their indices, the lower index along it and the higher against it. At exactly π both turn along it.

Shapes: k pairs of rows with d entries.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from arcface_plus import devices

_HASH_A, _HASH_B, _HASH_MASK = 0x9E3779B1, 0x85EBCA77, 0x7FFFFFFF
_LEAST_TANGENT = 1e-3  # of a squared chord: the rest is rounding of the norms


class Pairs(NamedTuple):
    """Hold k pairs' angles (k,) and what to add to both rows before projecting onto their tangents.

    dθ/dâ = P_a ``pull_a`` and dθ/db̂ = P_b ``pull_b``, P the projection orthogonal to the row.
    """

    angle: Tensor
    pull_a: Tensor
    pull_b: Tensor


def pair_angles(a: Tensor, b: Tensor) -> Tensor:
    """Return the angles (k,) in radians between unit rows ``a`` and ``b`` (k, d)."""
    _, squared, sign = _nearer_chord(a, b)
    return _angle(squared.sqrt(), sign)


def pair_terms(a: Tensor, b: Tensor, index_a: Tensor, index_b: Tensor) -> Pairs:
    """Return angle and gradients of pairs of unit rows (k, d); indices settle coincident ones."""
    difference, squared, sign = _nearer_chord(a, b)
    angle = _angle(squared.sqrt(), sign)
    radial_a = torch.linalg.vecdot(a, difference)
    radial_b = radial_a - squared
    tangent_a, tangent_b = squared - radial_a.square(), squared - radial_b.square()
    # A NaN is not degenerate: it must come out as it went in.
    least = _LEAST_TANGENT * squared
    degenerate = (tangent_a <= least) | (tangent_b <= least)
    if not devices.host_may_look(a.device) or bool(degenerate.any()):
        _part(difference, a, index_a, index_b, sign, degenerate)
        tangent_a, tangent_b = (torch.where(degenerate, 1.0, t) for t in (tangent_a, tangent_b))
    pull_a = difference * (sign * tangent_a.rsqrt())[:, None]
    pull_b = difference.mul_(tangent_b.rsqrt().neg_()[:, None])
    return Pairs(angle, pull_a, pull_b)


def _nearer_chord(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a − σb (k, d), its squared norm and σ (k,), which is −1 beyond a right angle."""
    difference = a - b
    squared = torch.linalg.vecdot(difference, difference)
    obtuse = squared > 2
    if not devices.host_may_look(a.device):
        difference = torch.where(obtuse[:, None], a + b, difference)
        squared = torch.linalg.vecdot(difference, difference)
    elif bool(obtuse.any()):
        at = obtuse.nonzero().flatten()
        total = a[at] + b[at]
        difference[at], squared[at] = total, torch.linalg.vecdot(total, total)
    return difference, squared, torch.where(obtuse, -1.0, 1.0).to(a.dtype)


def _angle(chord: Tensor, sign: Tensor) -> Tensor:
    turned = 2 * torch.asin(chord / 2)
    return torch.where(sign < 0, math.pi - turned, turned)


def _part(
    difference: Tensor, a: Tensor, index_a: Tensor, index_b: Tensor, sign: Tensor, where: Tensor
) -> None:
    """Write the tangent of the indices into ``difference`` (k, d) ``where`` rows coincide."""
    turn = torch.where((sign > 0) & (index_a > index_b), -1.0, 1.0).to(a.dtype)[:, None]
    if not devices.host_may_look(a.device):
        tangent = index_tangent(a, index_a, index_b) * turn
        difference.copy_(torch.where(where[:, None], tangent, difference))
        return
    at = where.nonzero().flatten()  # few rows coincide: touch those only
    difference[at] = index_tangent(a[at], index_a[at], index_b[at]) * turn[at]


def index_tangent(a: Tensor, index_a: Tensor, index_b: Tensor) -> Tensor:
    """Return a unit tangent at each unit row ``a`` (k, d) that depends on the pair's indices alone.

    It is a coordinate axis, projected; of two neighbouring axes the one farther from the row.
    One-dimensional rows have no tangent: zero.
    """
    axis, other = index_axes(index_a, index_b, a.shape[1])
    first, second = (a.gather(1, x[:, None]).abs()[:, 0] for x in (axis, other))
    axis = torch.where(second < first, other, axis)
    tangent = torch.zeros_like(a).scatter_(1, axis[:, None], 1.0)
    tangent = tangent - a.gather(1, axis[:, None]) * a
    length = torch.linalg.vector_norm(tangent, dim=1, keepdim=True)
    return torch.where(length > 0, tangent / length, 0.0)


def index_axes(index_a: Tensor, index_b: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Return two neighbouring ones (k,) of ``d`` axes, picked by the unordered pairs of indices."""
    low, high = torch.minimum(index_a, index_b), torch.maximum(index_a, index_b)
    axis = ((low * _HASH_A + high * _HASH_B) & _HASH_MASK) % d
    return axis, (axis + 1) % d


def project_rows(gradient: Tensor, unit: Tensor, norms: Tensor, scale: float) -> None:
    """Turn gradients at unit rows (k, d) into gradients at rows of ``norms`` (k,), in place.

    Takes out what is along the row, divides by the row's norm and multiplies by ``scale``.
    """
    along = torch.linalg.vecdot(gradient, unit)
    gradient.addcmul_(unit, along[:, None], value=-1).mul_((scale / norms)[:, None])
