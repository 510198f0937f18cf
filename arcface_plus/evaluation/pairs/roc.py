"""Areas, equal errors and TAR@FAR over all pairs; smaller distances mean the same person.

``genuine`` and ``impostor`` are 1-D distances of the pairs of one and of two people. Ties are
handled exactly: everything is a count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COARSE_BELOW = 10  # false accepts; a rate measured on fewer moves by a tenth and more with each


@dataclass(frozen=True)
class TarAtFar:
    """State one operating point: accept below ``threshold``; FAR is the one reached, <= target."""

    target: float
    tar: float
    far: float
    threshold: float
    coarse: bool


@dataclass(frozen=True)
class RefusedFar:
    """State a target that the impostor pairs cannot resolve, and how many could."""

    target: float
    impostor_pairs: int
    needed: int


def area_under_curve(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """Return how likely a genuine pair is nearer than an impostor pair; ties count half."""
    ordered = np.sort(genuine)
    below = np.searchsorted(ordered, impostor, side="left")
    up_to = np.searchsorted(ordered, impostor, side="right")
    # int64 holds 2 * 10^9 * 10^9.
    twice_wins = int(below.sum(dtype=np.int64) + up_to.sum(dtype=np.int64))
    return twice_wins / (2 * len(genuine) * len(impostor))


def equal_error_rate(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """Return where FAR equals FRR on the ROC curve, straight between its points."""
    cuts = np.unique(np.concatenate([genuine, impostor]))
    false_accepts = np.searchsorted(np.sort(impostor), cuts, side="right")
    false_rejects = len(genuine) - np.searchsorted(np.sort(genuine), cuts, side="right")
    far = np.concatenate([[0.0], false_accepts / len(impostor)])
    frr = np.concatenate([[1.0], false_rejects / len(genuine)])
    after = int(np.argmax(far >= frr))  # far - frr rises from -1 to 1
    before = after - 1
    gap_before = frr[before] - far[before]
    gap_after = far[after] - frr[after]
    share = gap_before / (gap_before + gap_after)
    return float(far[before] + share * (far[after] - far[before]))


def tar_at_far(
    genuine: np.ndarray, impostor: np.ndarray, targets: Sequence[float]
) -> tuple[list[TarAtFar], list[RefusedFar]]:
    """Return the TAR at the largest threshold whose FAR is at most each target.

    A target that allows less than one false accept among the impostor pairs is refused; one that
    allows fewer than ten is marked coarse. Pairs are accepted strictly below the threshold, which
    is infinite where everything may be accepted.

    Raises ValueError for a target outside (0, 1].
    """
    ordered = np.sort(impostor)
    ordered_genuine = np.sort(genuine)
    reached: list[TarAtFar] = []
    refused: list[RefusedFar] = []
    for target in targets:
        if not 0 < target <= 1:
            raise ValueError(f"A FAR target is a rate in (0, 1], but {target} was asked for.")
        allowed = allowed_false_accepts(target, len(ordered))
        if allowed == 0:
            refused.append(RefusedFar(float(target), len(ordered), math.ceil(1 / target)))
            continue
        threshold = float(ordered[allowed]) if allowed < len(ordered) else math.inf
        accepted = int(np.searchsorted(ordered_genuine, threshold, side="left"))
        false_accepts = int(np.searchsorted(ordered, threshold, side="left"))
        reached.append(
            TarAtFar(
                target=float(target),
                tar=accepted / len(ordered_genuine),
                far=false_accepts / len(ordered),
                threshold=threshold,
                coarse=allowed < COARSE_BELOW,
            )
        )
    return reached, refused


def allowed_false_accepts(target: float, impostors: int) -> int:
    """Return the largest k with k / impostors <= target, as floats compare."""
    allowed = min(impostors, math.floor(target * impostors))
    # 0.29 * 100 is 28.999999999999996, though 29 / 100 is 0.29.
    while allowed < impostors and (allowed + 1) / impostors <= target:
        allowed += 1
    while allowed and allowed / impostors > target:
        allowed -= 1
    return allowed
