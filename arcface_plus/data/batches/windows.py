"""An order for sets larger than memory: files are read in sequence, images shuffled in windows.

The set is cut into 64 stripes of consecutive images. An epoch begins somewhere in each stripe, goes
through all stripes at once, image after image, and comes back to where it began. A window is the
next slice of every stripe, shuffled: the images of a batch come from 64 places of the set and from
``window`` images, whose records a disk reads in 64 runs. All of it is a function of (seed, epoch).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from arcface_plus.randomness import window_generator

STRIPES = 64

Run = tuple[int, int]
"""Images first … end − 1."""


class Windows:
    """The order of ``num_samples`` images, shuffled in windows of ``window`` images or a bit fewer.

    Holds a few windows at a time, 8 bytes an image.
    """

    def __init__(self, num_samples: int, seed: int, window: int) -> None:
        assert num_samples > 0 and window > 0
        self.num_samples, self.seed = num_samples, seed
        stripes = min(STRIPES, num_samples)
        self.count = -(-num_samples // window)
        self._borders = np.arange(stripes + 1) * num_samples // stripes
        # Place w, s: how many images of stripe s come before window w.
        lengths = np.diff(self._borders)
        self._cuts = np.arange(self.count + 1)[:, None] * lengths // self.count
        self._starts = self._cuts.sum(axis=1)
        # A batch lies in one or two windows, its spares in the next; plans are made in order.
        self._window = lru_cache(maxsize=3)(self._shuffled)

    def at(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Return the images at ``places`` (n,) of an epoch's order."""
        windows = np.searchsorted(self._starts, places, side="right") - 1
        images = np.empty(len(places), dtype=np.int64)
        for window in np.unique(windows).tolist():
            mine = windows == window
            images[mine] = self._window(epoch, window)[places[mine] - self._starts[window]]
        return images

    def ahead(self, epoch: int, first: int, before: int | None) -> tuple[Run, ...]:
        """Return the runs of the window after that of place ``first``, where it has just begun.

        ``before``: the place of the batch before, for which the same was asked; None at the start
        of training, when the window at ``first`` is due too.
        """
        now = int(np.searchsorted(self._starts, first, side="right")) - 1
        due = [now, now + 1] if before is None else [now + 1]
        if before is not None and before >= self._starts[now]:
            return ()
        following = [(epoch, w) if w < self.count else (epoch + 1, 0) for w in due]
        return tuple(run for which in following for run in self.runs(*which))

    def runs(self, epoch: int, window: int) -> list[Run]:
        """Return the runs of consecutive images of a window, in the order of the set."""
        firsts, ends = self._begins(epoch) + self._cuts[window : window + 2]
        found: list[Run] = []
        for stripe, (first, end) in enumerate(zip(firsts.tolist(), ends.tolist(), strict=True)):
            low, high = self._borders[stripe : stripe + 2].tolist()
            length = high - low
            # Past its end, a stripe goes on at its beginning.
            for lap in (0, length):
                a, b = max(first - lap, 0), min(end - lap, length)
                if a < b:
                    found.append((low + a, low + b))
        return sorted(found)

    def _begins(self, epoch: int) -> np.ndarray:
        """Return where in each stripe an epoch begins."""
        return window_generator(self.seed, epoch).integers(np.diff(self._borders))

    def _shuffled(self, epoch: int, window: int) -> np.ndarray:
        images = np.concatenate([np.arange(*run) for run in self.runs(epoch, window)])
        window_generator(self.seed, epoch, window).shuffle(images)
        return images
