"""Which images a second pass sees: easy and hard ones of the batch's classes, by their scores.

As in the published code of the closeness-and-diversity method; its description in the paper's main
text was not read. Draws depend on (seed, step) alone and see nothing but their arguments, so that
ranks with equal scores choose equal images.

Shapes: N images, B of a batch, K classes of a pass, E easy and H hard images of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# How far the bounds move outwards at a time where too few images lie between them.
_WIDENING = 0.05


class ClassMembers:
    """The images of every class: one array sorted by class, 4 bytes an image."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels
        self._images = np.argsort(labels, kind="stable").astype(np.uint32)
        self._starts = np.append(0, np.cumsum(np.bincount(labels)))

    def of(self, label: int) -> np.ndarray:
        """Return the images (n,) of a class, ascending, int64."""
        return self._images[self._starts[label] : self._starts[label + 1]].astype(np.int64)

    def others(self, index: int, most: int) -> list[int]:
        """Return at most ``most`` other images of the class of ``index``, from the next one on."""
        mine = self.of(int(self.labels[index]))
        turned = np.roll(mine, -1 - int(np.searchsorted(mine, index)))
        return [int(i) for i in turned[: min(most, len(mine) - 1)]]


def choose_classes(
    labels: np.ndarray, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``count`` different classes of ``labels`` (B,), or all there are, and their rows.

    Both are (K,) int64; the row of a class is that of its first image in the batch.
    """
    classes, rows = np.unique(labels, return_index=True)
    chosen = generator.permutation(len(classes))[:count]
    return classes[chosen], rows[chosen]


def threshold_sample(total: int, most: int, generator: np.random.Generator) -> np.ndarray | None:
    """Return images (``most``,), drawn with replacement; None where all ``total`` are to count."""
    return None if total <= most else generator.integers(total, size=most)


def choose_easy_and_hard(
    scores: Sequence[np.ndarray],
    threshold: float,
    easy: int,
    hard: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return the positions (K, E + H) of the chosen images, easy first, in each class's ``scores``.

    Easy images have scores in (threshold, 1), hard ones in (0, threshold).
    """
    bounds = ((threshold, 1.0, easy), (0.0, threshold, hard))
    return np.stack(
        [np.concatenate([draw_between(own, *b, generator) for b in bounds]) for own in scores]
    )


def choose_evenly(sizes: Sequence[int], count: int, generator: np.random.Generator) -> np.ndarray:
    """Return positions (K, ``count``) drawn evenly in classes of ``sizes`` images."""
    return np.stack([np.resize(generator.permutation(size), count) for size in sizes])


def draw_between(
    scores: np.ndarray, low: float, high: float, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Return ``count`` positions in ``scores`` (n,) with ``low`` < score < ``high``, in any order.

    Where too few lie there, both bounds move outwards by 0.05 at a time until enough do, or all;
    where even all are too few, they repeat in turn. Scores are finite.
    """
    while True:
        inside = np.flatnonzero((scores > low) & (scores < high))
        if len(inside) >= min(count, len(scores)):
            return np.resize(generator.permutation(inside), count)
        low, high = low - _WIDENING, high + _WIDENING


def easiness(scores: np.ndarray, threshold: float, softness: float) -> np.ndarray:
    """Return σ((score − threshold)/softness) of ``scores`` (…), float32: ours, [R].

    The weight of an image among the easy ones; 1 minus it among the hard ones. The paper names a
    "Soft Mining Scheme" without saying what it is; this is not claimed to be it.
    """
    x = (scores.astype(np.float64) - threshold) / softness
    return (0.5 * (1 + np.tanh(x / 2))).astype(np.float32)
