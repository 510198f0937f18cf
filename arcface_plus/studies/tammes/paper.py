"""Table 1's protocol, MMA paper, section 4: points spread by plain SGD on one of four losses.

Stated there: weights from the standard normal distribution, SGD with momentum 0.9, 10 000
iterations, learning rate 0.1 divided by 5 "once learning stagnates", s = 2 for the Riesz-Fisher
loss, the smallest angle as the measure. When learning counts as stagnating is not stated. Here it
does when the loss has not come below its least value so far for ``PATIENCE`` iterations, counted
anew after each cut. The rows measured are those after the last iteration.

The gradients are tangent, so a step can only lengthen a row, and the angle it turns by falls as
1/‖w‖².

Shapes: b runs (one a seed), n points, d dimensions; weights are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from arcface_plus.studies.tammes.angles import certified_angle, smallest_angle
from arcface_plus.studies.tammes.anneal import on_sphere
from arcface_plus.studies.tammes.losses import loss_function
from arcface_plus.studies.tammes.solve import Solution, check_sizes

ITERATIONS = 10_000
LEARNING_RATE, CUT_BY, MOMENTUM = 0.1, 5.0, 0.9
PATIENCE = 500
_ENTRIES_AT_ONCE = 2_000_000  # of the cosines of the runs that are trained together
_REPORT_EVERY = 200


class ProtocolRuns(NamedTuple):
    """Hold unit rows (b, n, d) float64 after training, and their smallest angles (b,), radians."""

    rows: np.ndarray
    angles: np.ndarray


def run_protocol(
    loss: str,
    dim: int,
    points: int,
    seeds: Sequence[int],
    *,
    iterations: int = ITERATIONS,
    patience: int = PATIENCE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProtocolRuns:
    """Train ``points`` points in ``dim`` dimensions with ``loss``, once for each of ``seeds``.

    A run depends on its own seed alone, not on the others. ``progress`` counts iterations.
    """
    function = loss_function(loss)
    size = max(1, min(len(seeds), _ENTRIES_AT_ONCE // points**2))
    groups = [seeds[low : low + size] for low in range(0, len(seeds), size)]
    total = iterations * len(groups)
    parts = []
    with threadpool_limits(1):  # products this small lose by sharing
        for k, group in enumerate(groups):
            weight = np.stack([initial_weight(seed, points, dim) for seed in group])
            before = k * iterations
            parts.append(
                _train(
                    function,
                    torch.from_numpy(weight),
                    iterations,
                    patience,
                    lambda done: progress(before + done, total),  # noqa: B023
                )
            )
    return ProtocolRuns(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def solve_by_loss(
    loss: str, dim: int, points: int, *, seed: int, progress: Callable[[int, int], None]
) -> Solution:
    """Return what one run of the protocol reaches, in the form of ``solve_with_report``."""
    check_sizes(dim, points, seed)
    runs = run_protocol(loss, dim, points, [seed], progress=progress)
    rows, certified = runs.rows[0], certified_angle(runs.rows[0])
    return Solution(rows, float(runs.angles[0]), certified, f"SGD on {loss}", 0, False)


def initial_weight(seed: int, points: int, dim: int) -> np.ndarray:
    """Return the standard normal weight (n, d) float32 that the run of ``seed`` starts from."""
    return np.random.default_rng(seed).standard_normal((points, dim), dtype=np.float32)


def _train(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    weight: Tensor,
    iterations: int,
    patience: int,
    progress: Callable[[int], None],
) -> ProtocolRuns:
    momentum = torch.zeros_like(weight)
    rate = torch.full((len(weight), 1, 1), LEARNING_RATE)
    least = torch.full((len(weight),), torch.inf, dtype=torch.float64)
    waited = torch.zeros(len(weight), dtype=torch.int64)
    for iteration in range(iterations):
        value, gradient = function(weight)
        waited = torch.where(value < least, 0, waited + 1)
        least = torch.minimum(value, least)
        stagnates = waited >= patience
        rate[stagnates] /= CUT_BY
        waited[stagnates] = 0
        momentum = MOMENTUM * momentum + gradient
        weight = weight - rate * momentum
        if (iteration + 1) % _REPORT_EVERY == 0 or iteration + 1 == iterations:
            progress(iteration + 1)
    rows = on_sphere(weight.double().numpy())
    return ProtocolRuns(rows, np.array([smallest_angle(each) for each in rows]))
