"""Search for points on a sphere whose smallest angle is large: restarts, hops, polish.

Random configurations are annealed. The best of them then hop: a random point moves into
the widest hole and the whole is annealed again from a middle rung, kept where it became better. The
best few of all are polished to local optima. Everything is drawn from the seed; a limit in seconds
only cuts the sequence short.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from arcface_plus.studies.tammes.angles import smallest_angle
from arcface_plus.studies.tammes.anneal import anneal, largest_cosine, on_sphere
from arcface_plus.studies.tammes.polish import Polished, polish

Progress = Callable[[int, int], None]

MOST_POINTS = 5000  # of a search: its matrices are n × n, and a restart at 5 000 takes minutes
_MOST_VARIABLES = 20_000  # of a linear program
_RESTART_ENTRIES = 1_100_000  # of the cosines of all restarts, where their number is not given
_POOL, _POLISHED, _HOLES_TRIED = 16, 4, 256
_RESTARTS_PER_ROUND = 6  # a round of hops takes as long as about so many restarts
_HOP_BLUNTEST, _HOP_FACTOR = 16.0, 2.0


def search(
    dim: int,
    points: int,
    *,
    restarts: int | None,
    seconds: float | None,
    seed: int,
    progress: Progress,
) -> tuple[Polished, int]:
    """Return the best configuration of ``restarts`` random ones, and how many were made.

    See the module. ``restarts`` None: enough for the size, 64 for up to 131 points. At least one is
    annealed, however short ``seconds`` are, on its first rung at least. ``progress`` is
    called with the work done and in all, counted in restarts.
    """
    restarts = restarts or max(8, min(64, _RESTART_ENTRIES // points**2))
    end = math.inf if seconds is None else time.monotonic() + seconds
    rounds = max(1, restarts // _RESTARTS_PER_ROUND)
    total = restarts + rounds + _POLISHED

    def time_left() -> bool:
        return time.monotonic() < end

    # The products are too small to share among threads, and sharing would change the rounding.
    with threadpool_limits(1, user_api="blas"):
        pool: list[np.ndarray] = []
        while len(pool) < restarts and (not pool or time_left()):
            start = np.random.default_rng([seed, 0, len(pool)]).standard_normal((points, dim))
            pool.append(anneal(on_sphere(start), go_on=time_left))
            progress(len(pool), total)
        made, pool = len(pool), sorted(pool, key=largest_cosine)[:_POOL]
        for turn in range(rounds):
            rng = np.random.default_rng([seed, 1, turn])
            for k, best in enumerate(pool):
                if time_left():
                    moved = move_into_hole(best, rng)
                    hopped = anneal(moved, _HOP_BLUNTEST, _HOP_FACTOR, go_on=time_left)
                    pool[k] = min(best, hopped, key=largest_cosine)
            progress(made + turn + 1, total)
        found = _polish_best(pool, time_left, lambda k: progress(total - _POLISHED + k, total))
    progress(total, total)
    return found, made


def move_into_hole(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the configuration (n, d) with a random point moved to the widest hole found."""
    candidates = on_sphere(rng.standard_normal((_HOLES_TRIED, rows.shape[1])))
    moved = rows.copy()
    moved[rng.integers(len(rows))] = candidates[(candidates @ rows.T).max(1).argmin()]
    return moved


def _polish_best(
    pool: list[np.ndarray], go_on: Callable[[], bool], progress: Callable[[int], None]
) -> Polished:
    """Return the best of the pool's first few, polished where the linear program is not too big."""
    polished = []
    for rows in sorted(pool, key=largest_cosine)[:_POLISHED]:
        small = rows.shape[0] * (rows.shape[1] - 1) <= _MOST_VARIABLES
        polished.append(polish(rows, go_on=go_on) if small else Polished(rows, converged=False))
        progress(len(polished))
    return max(polished, key=lambda one: smallest_angle(one.rows))
