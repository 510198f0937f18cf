"""Search for points on a sphere whose smallest angle is large: restarts, hops, polish.

Random configurations are annealed in batches. The best of them then hop: a random point moves into
the widest hole and the whole is annealed again from a middle rung, kept where it became better. The
best few of all are polished to local optima. Everything is drawn from the seed; a limit in seconds
only cuts the sequence short.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from arcface_plus.studies.tammes.angles import smallest_angle
from arcface_plus.studies.tammes.anneal import (
    anneal,
    on_sphere,
    random_rows,
)
from arcface_plus.studies.tammes.polish import polish

Progress = Callable[[int, int], None]

MOST_POINTS = 5000  # of a search: its matrices are n × n, and a restart at 5 000 takes minutes
_MOST_VARIABLES = 20_000  # of a linear program
_ENTRIES_AT_ONCE = 600_000  # of the cosines of a batch: they should stay in the cache
_RESTART_ENTRIES = 1_100_000  # of the cosines of all restarts, where their number is not given
_POOL, _POLISHED, _HOLES_TRIED = 16, 4, 256
_RESTARTS_PER_ROUND = 6  # a round of hops takes as long as about so many restarts
_HOP_BLUNTEST, _HOP_FACTOR = 16.0, 2.0


class Found(NamedTuple):
    """Hold the best rows (n, d), the restarts made, and whether they are a local optimum."""

    rows: np.ndarray
    restarts: int
    converged: bool


class _Clock:
    """Say whether there is time left; without a limit there always is."""

    def __init__(self, seconds: float | None) -> None:
        self.end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> bool:
        return self.end is None or time.monotonic() < self.end


def default_restarts(points: int) -> int:
    """Return how many restarts a search makes where that is not said: 64 for up to 131 points."""
    return max(8, min(64, _RESTART_ENTRIES // points**2))


def search(
    dim: int,
    points: int,
    *,
    restarts: int,
    seconds: float | None,
    seed: int,
    progress: Progress,
) -> Found:
    """Return the best configuration of ``restarts`` random ones; see the module.

    At least one batch is annealed, however short ``seconds`` are, on its first rung at least.
    ``progress`` is called with the work done and in all, counted in restarts.
    """
    from threadpoolctl import threadpool_limits

    clock = _Clock(seconds)
    rounds = max(1, restarts // _RESTARTS_PER_ROUND)
    total = restarts + rounds + _POLISHED
    # The products are too small to share among threads, and sharing would change the rounding.
    with threadpool_limits(1, user_api="blas"):
        pool, made = _restart(dim, points, restarts, seed, clock, lambda k: progress(k, total))
        for turn in range(rounds):
            if not clock.left():
                break
            _hop(pool, np.random.default_rng([seed, 1, turn]), clock)
            progress(made + turn + 1, total)
        found = _polish_best(pool, clock, lambda k: progress(total - _POLISHED + k, total))
    progress(total, total)
    return Found(found.rows, made, found.converged)


class _Pool:
    """The best configurations so far, best first."""

    def __init__(self) -> None:
        self.rows: np.ndarray = np.empty((0, 0, 0))
        self.largest: np.ndarray = np.empty(0)

    def offer(self, rows: np.ndarray, largest: np.ndarray) -> None:
        if len(self.largest):
            rows = np.concatenate([self.rows, rows])
            largest = np.concatenate([self.largest, largest])
        order = np.argsort(largest, kind="stable")[:_POOL]
        self.rows, self.largest = rows[order], largest[order]


def _batch_size(points: int) -> int:
    return max(1, min(32, _ENTRIES_AT_ONCE // points**2))


def _restart(
    dim: int,
    points: int,
    restarts: int,
    seed: int,
    clock: _Clock,
    progress: Callable[[int], None],
) -> tuple[_Pool, int]:
    pool, made, turn = _Pool(), 0, 0
    while made < restarts and (made == 0 or clock.left()):
        size = min(_batch_size(points), restarts - made)
        start = random_rows(np.random.default_rng([seed, 0, turn]), size, points, dim)
        asked = 0

        def go_on() -> bool:
            nonlocal asked
            asked += 1
            return asked == 1 or clock.left()

        pool.offer(*anneal(start, go_on=go_on))
        made, turn = made + size, turn + 1
        progress(made)
    return pool, made


def _hop(pool: _Pool, rng: np.random.Generator, clock: _Clock) -> None:
    """Let each configuration of the pool hop once, and keep those that became better."""
    moved = move_into_holes(pool.rows, rng)
    size = _batch_size(moved.shape[1])
    for low in range(0, len(moved), size):
        if not clock.left():
            return
        part = slice(low, low + size)
        rows, largest = anneal(
            moved[part], bluntest=_HOP_BLUNTEST, factor=_HOP_FACTOR, go_on=clock.left
        )
        better = largest < pool.largest[part]
        pool.rows[part][better] = rows[better]
        pool.largest[part][better] = largest[better]


def move_into_holes(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return configurations (b, n, d) with a random point each moved to the widest hole found."""
    batch, n, dim = rows.shape
    candidates = on_sphere(rng.standard_normal((batch, _HOLES_TRIED, dim), dtype=np.float32))
    nearest = (candidates @ rows.transpose(0, 2, 1)).max(2)
    moved, each = rows.copy(), np.arange(batch)
    moved[each, rng.integers(n, size=batch)] = candidates[each, nearest.argmin(1)]
    return moved


def _polish_best(pool: _Pool, clock: _Clock, progress: Callable[[int], None]) -> Found:
    """Return the best of the pool's first few, polished where the linear program is not too big."""
    order = np.argsort(pool.largest, kind="stable")[:_POLISHED]
    n, dim = pool.rows.shape[1:]
    best: Found | None = None
    for k, index in enumerate(order):
        rows, converged = on_sphere(pool.rows[index].astype(np.float64)), False
        if n * (dim - 1) <= _MOST_VARIABLES:
            done = polish(rows, go_on=clock.left)
            rows, converged = done.rows, done.converged
        if best is None or smallest_angle(rows) > smallest_angle(best.rows):
            best = Found(rows, 0, converged)
        progress(k + 1)
    assert best is not None
    return best
