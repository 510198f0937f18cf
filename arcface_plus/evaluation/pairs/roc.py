"""Areas, equal errors and TAR@FAR over all pairs; smaller distances mean the same person.

Two rules for TAR@FAR. Ours, ``tar_at_far``: the largest acceptance whose FAR is at most the target.
insightface's, ``tar_at_nearest_far``: the point of scikit-learn's ROC curve whose FAR is nearest to
the target, which may lie above it.

``genuine`` and ``impostor`` are 1-D distances of the pairs of one and of two people. Ties are
handled exactly: everything is a count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

COARSE_BELOW = 10  # false accepts; a rate measured on fewer moves by a tenth and more with each


class Record:
    """What was measured, in the fields of a dataclass."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain types that JSON can hold; rates become text keys, infinity becomes None."""
        return {name: json_ready(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class TarAtFar(Record):
    """Hold TAR at FAR targets; results of a protocol add their own measures.

    - ``tar_at_far``: FAR target → TAR at the largest acceptance whose FAR is at most the target.
    - ``far_reached``, ``tar_thresholds``: target → that FAR, and the threshold.
    - ``coarse_fars``: targets that allow fewer than ten false accepts.
    - ``refused_fars``: target → impostor pairs needed, for those that allow less than one.
    """

    tar_at_far: dict[float, float]
    far_reached: dict[float, float]
    tar_thresholds: dict[float, float]
    coarse_fars: tuple[float, ...]
    refused_fars: dict[float, int]


def json_ready(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: keys become text, infinity None, and tuples lists."""
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else f"{key:g}": json_ready(each)
            for key, each in value.items()
        }
    if isinstance(value, tuple | list):
        return [json_ready(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
    genuine: np.ndarray,
    impostor: np.ndarray,
    targets: Sequence[float],
    *,
    impostors: int | None = None,
) -> TarAtFar:
    """Return the TAR at the largest threshold whose FAR is at most each target.

    A target that allows less than one false accept among the impostor pairs is refused; one that
    allows fewer than ten is marked coarse. Pairs are accepted strictly below the threshold, which
    is infinite where everything may be accepted. ``impostors``: how many impostor pairs there are,
    where ``impostor`` holds the smallest distances alone, at least ``distances_needed`` of them.

    Raises ValueError for a target outside (0, 1].
    """
    total = len(impostor) if impostors is None else impostors
    assert len(impostor) >= distances_needed(total, targets)
    impostor, genuine = np.sort(impostor), np.sort(genuine)
    allowed = {target: allowed_false_accepts(target, total) for target in map(float, targets)}
    cuts = {t: float(impostor[k]) if k < total else math.inf for t, k in allowed.items() if k}

    def shares(of: np.ndarray, count: int) -> dict[float, float]:
        return {t: int(np.searchsorted(of, cut, side="left")) / count for t, cut in cuts.items()}

    return TarAtFar(
        tar_at_far=shares(genuine, len(genuine)),
        far_reached=shares(impostor, total),
        tar_thresholds=cuts,
        coarse_fars=tuple(t for t, k in allowed.items() if 0 < k < COARSE_BELOW),
        refused_fars={t: math.ceil(1 / t) for t, k in allowed.items() if not k},
    )


def tar_at_far_of_scores(
    genuine: np.ndarray,
    impostor: np.ndarray,
    targets: Sequence[float],
    *,
    impostors: int | None = None,
) -> TarAtFar:
    """Return the same for scores, of which larger ones mean the same person.

    Pairs are accepted strictly above the threshold, −∞ where everything may be accepted.
    """
    found = tar_at_far(-genuine, -impostor, targets, impostors=impostors)
    above = {target: -threshold for target, threshold in found.tar_thresholds.items()}
    return replace(found, tar_thresholds=above)


def tar_at_nearest_far(
    genuine: np.ndarray,
    impostor: np.ndarray,
    targets: Sequence[float],
    *,
    impostors: int | None = None,
) -> tuple[dict[float, float], dict[float, float]]:
    """Return target → TAR, and target → FAR, as insightface's evaluator picks them.

    It takes the point of ``sklearn.metrics.roc_curve`` whose FAR is nearest to the target, on
    either side. Of two points equally near that of larger FAR counts, of those the one of larger
    TAR. ``impostors``: as in ``tar_at_far``; twice as many distances are needed.
    """
    total = len(impostor) if impostors is None else impostors
    impostor, genuine = np.sort(impostor), np.sort(genuine)
    cuts = np.unique(np.concatenate([impostor, genuine]))
    false_accepts = np.searchsorted(impostor, cuts, side="right")
    true_accepts = np.searchsorted(genuine, cuts, side="right")
    # The curve keeps corners: where the counts do not go on as they did.
    corner = np.ones(len(cuts), dtype=bool)
    corner[1:-1] = (np.diff(false_accepts, 2) != 0) | (np.diff(true_accepts, 2) != 0)
    far = np.concatenate([[0.0], false_accepts[corner] / total])[::-1]
    tar = np.concatenate([[0.0], true_accepts[corner] / len(genuine)])[::-1]
    nearest = {float(t): int(np.argmin(np.abs(far - t))) for t in targets}  # argmin: the first
    return (
        {target: float(tar[place]) for target, place in nearest.items()},
        {target: float(far[place]) for target, place in nearest.items()},
    )


def distances_needed(impostors: int, targets: Sequence[float]) -> int:
    """Return how many of the smallest impostor distances (or largest scores) the targets need.

    Raises ValueError for a target outside (0, 1].
    """
    for target in targets:
        if not 0 < target <= 1:
            raise ValueError(
                f"A FAR target (or FPIR target) is a rate in (0, 1], but {target} was asked for."
            )
    allowed = max((allowed_false_accepts(target, impostors) for target in targets), default=0)
    return min(impostors, allowed + 1)


def allowed_false_accepts(target: float, impostors: int) -> int:
    """Return the largest k with k / impostors <= target, as floats compare."""
    allowed = min(impostors, math.floor(target * impostors))
    # 0.29 * 100 is 28.999999999999996, though 29 / 100 is 0.29.
    while allowed < impostors and (allowed + 1) / impostors <= target:
        allowed += 1
    while allowed and allowed / impostors > target:
        allowed -= 1
    return allowed
