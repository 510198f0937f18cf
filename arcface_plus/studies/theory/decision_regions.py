"""Which class a point belongs to when every class asks for its margin (Figs. 15 to 18).

A point belongs to class k where f(θ_k)/s ≥ max_{j≠k} cosθ_j: the margin is asked of k while the
others are taken as they are (max(0, cosθ_j) with WC-ReLU, [R]). Where no class can claim the point
it lies in the margin between them. Reconstructed, [R], from the appendix's figures and captions.
Angles are in radians.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from arcface_plus.losses.margins.family import Margin, other_cosine, target_logit
from arcface_plus.losses.theory.uniform_prediction import target_curve

NOBODY = -1
# The paper's tuned margins, which its Figs. 15 to 18 show; m1 is raw past π, our reading [R].
PAPER_MARGINS: dict[str, Margin] = {
    "none": Margin(m2=0.0, extension="raw"),
    "AmpFace": Margin(m0=0.35, m2=0.0, extension="raw"),
    "SphereFace": Margin(m1=1.35, m2=0.0, extension="raw"),
    "ArcFace": Margin(m2=0.6, extension="raw"),
    "CosFace": Margin(m2=0.0, m3=0.5, extension="raw"),
}


def owners(cosine: ArrayLike, margin: Margin) -> np.ndarray:
    """Return the class (…,) that owns each point of ``cosine`` (…, k), or NOBODY in the margin.

    k ≥ 2 classes. A margin that widens regions (m0 > 1, m3 < 0) lets several classes claim a point:
    the one of largest f(θ_k)/s − max_{j≠k} cosθ_j has it.
    """
    values = np.asarray(cosine, dtype=np.float64)
    if values.ndim < 1 or values.shape[-1] < 2:
        raise ValueError(f"cosine has shape {values.shape}, but needs two classes or more (…, k).")
    claims = torch.from_numpy(values)
    claim = target_logit(claims, margin).numpy() / margin.s
    others = other_cosine(claims, margin).numpy()
    # The largest of the others is the largest of all, or the second where that is one's own.
    top = np.partition(others, -2, axis=-1)[..., -2:]
    is_top = np.arange(values.shape[-1]) == others.argmax(axis=-1)[..., None]
    surplus = claim - np.where(is_top, top[..., :1], top[..., 1:])
    best = surplus.argmax(axis=-1)
    return np.where(surplus.max(axis=-1) >= 0, best, NOBODY)


def angular_owners(first: ArrayLike, second: ArrayLike, margin: Margin) -> np.ndarray:
    """Return 0, 1 or NOBODY at angles to two classes, taken as free of each other (Fig. 15)."""
    pair = np.broadcast_arrays(first, second)
    return owners(np.cos(np.stack(pair, axis=-1)), margin)


def cap_half_angle(inter_angle: float, margin: Margin) -> float:
    """Return how far a class reaches towards a neighbour at ``inter_angle``, 0 < M ≤ π (Fig. 18).

    The first α with f(α)/s = cos(M − α), or max(0, cos(M − α)) with WC-ReLU: the half angle of the
    cap that many neighbours at M leave to the class. 0 where not even its own direction is won, M
    where all of the way is.
    """
    if not 0 < inter_angle <= math.pi:
        raise ValueError(f"inter_angle is {inter_angle:.6g}, but must lie in 0 to π radians.")

    def surplus(alpha: ArrayLike) -> np.ndarray:
        value, _ = target_curve(margin, alpha)
        rival = np.cos(inter_angle - np.asarray(alpha))
        return value / margin.s - (np.maximum(rival, 0.0) if margin.wc_relu else rival)

    grid = np.linspace(0.0, inter_angle, 2001)
    lost = np.flatnonzero(surplus(grid) < 0)
    if not len(lost):
        return inter_angle
    if lost[0] == 0:
        return 0.0
    return float(brentq(surplus, grid[lost[0] - 1], grid[lost[0]], xtol=1e-15))


def ring_of_neighbours(angle: float, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return ``count`` unit rows (count, 3) at polar ``angle`` from (0, 0, 1), azimuths uniform.

    The paper says "around the equatorial region" and no more; the sampling is ours, [R].
    """
    azimuth = generator.uniform(0, 2 * math.pi, count)
    across = math.sin(angle) * np.stack([np.cos(azimuth), np.sin(azimuth)], axis=1)
    return np.pad(across, ((0, 0), (0, 1)), constant_values=math.cos(angle))


def visible_points(view: ArrayLike, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what is seen of the unit sphere from far away in direction ``view`` (3,).

    Points (pixels, pixels, 3), row 0 at the bottom, NaN off the disc; and the picture's right and
    up axes (2, 3).
    """
    towards = np.asarray(view, dtype=np.float64) / np.linalg.norm(view)
    pole = np.array([0.0, 0.0, 1.0]) if abs(towards[2]) < 0.999 else np.array([0.0, 1.0, 0.0])
    right = np.cross(pole, towards)
    right /= np.linalg.norm(right)
    up = np.cross(towards, right)
    side = np.linspace(-1, 1, pixels)
    x, y = np.meshgrid(side, side)
    square = x * x + y * y
    depth = np.sqrt(np.where(square <= 1, 1 - square, np.nan))
    points = x[..., None] * right + y[..., None] * up + depth[..., None] * towards
    return points, np.stack([right, up])
