"""How like whom a photograph is, on a scale that a model and a person's own spread do not move.

Likeness 1 is that of a person's own photographs to each other, likeness 0 that of strangers.

Shapes: N photographs, P people, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_matrix

_NOBODY = 0.5  # votes: sums of shares are whole numbers but for rounding
_ENTRIES = 2**24  # of the matrices that are held at once
_PRIOR = 4  # pairs of photographs: what the typical spread weighs beside a person's own
_LEAST = 0.5  # of the typical scale: a folder of several people has next to none of its own


class People:
    """The people of a set as the mean cosines between their photographs.

    ``unit`` (N, D): unit embeddings. ``labels`` (N,): whose each is said to be, 0 … P − 1.
    ``groups`` (N,): equal for photographs that are copies of one another; those of one person share
    one vote. ``votes`` (N,) bool: which photographs speak for their person; all if absent.

    Raises ValueError where the model does not tell these people apart.
    """

    def __init__(
        self,
        unit: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray,
        votes: np.ndarray | None = None,
    ) -> None:
        self.unit, self.labels, self.groups = unit, labels, groups
        self.count = int(labels.max()) + 1
        spoken = np.ones(len(unit)) if votes is None else votes.astype(np.float64)
        _, vote = np.unique(np.stack([labels, groups]), axis=1, return_inverse=True)
        shared = np.bincount(vote, spoken)[vote]
        self.weights = np.divide(spoken, shared, out=np.zeros(len(unit)), where=shared > 0)
        self.own_votes = np.bincount(labels, self.weights, self.count).astype(np.float32)
        self._copies(groups)
        by_person = self._matrix(labels, self.weights, self.count)
        self.sums = np.asarray(by_person.T @ unit, dtype=np.float32)
        by_vote = self._matrix(vote, self.weights, int(vote.max()) + 1)
        within = np.square(np.asarray(by_vote.T @ unit)).sum(axis=1)
        person_of_vote = np.zeros(len(within), dtype=np.int64)
        person_of_vote[vote] = labels
        self._measure(np.bincount(person_of_vote, within, minlength=self.count))

    def _matrix(self, columns: np.ndarray, values: np.ndarray, width: int) -> csr_matrix:
        rows = np.arange(len(columns))
        shape = (len(columns), width)
        return csr_matrix((values.astype(np.float32), (rows, columns)), shape=shape)

    def _copies(self, groups: np.ndarray) -> None:
        """Note what each photograph and its copies add to each person: it is taken away again."""
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        sizes = np.diff(np.append(starts, len(groups)))
        # Every photograph of a group with every one of it, itself too.
        first = np.repeat(order, np.repeat(sizes, sizes))
        second = np.concatenate(
            [np.tile(order[a : a + n], n) for a, n in zip(starts, sizes, strict=True)]
        )
        cosine = np.einsum("nd,nd->n", self.unit[first], self.unit[second])
        place = (first, self.labels[second])
        shape = (len(groups), self.count)
        self._copied_votes = csr_matrix((self.weights[second], place), shape=shape)
        self._copied_sums = csr_matrix((self.weights[second] * cosine, place), shape=shape)

    def _measure(self, own_votes_squared: np.ndarray) -> None:
        """Find where strangers and where a person's own photographs lie."""
        n = self.own_votes
        pairs = n * (n - 1)
        squared = np.square(self.sums).sum(axis=1)
        several = n > 1 + _NOBODY
        seen = n > _NOBODY
        means = self.sums[seen] / n[seen, None]
        of_means = len(means) * (len(means) - 1)
        total = np.square(means.sum(axis=0)).sum() - np.square(means).sum()
        if not several.any() or not of_means:
            raise ValueError(
                "nobody can be compared: it takes two people, one of them with two photographs "
                "that are no copies of each other."
            )
        own = (squared - own_votes_squared)[several] / pairs[several]
        self.stranger, self.typical = float(total / of_means), float(np.median(own))
        scale = self.typical - self.stranger
        if scale <= 0.02:
            raise ValueError(
                "the model does not tell these people apart: the mean cosine is "
                f"{self.typical:.3f} between photographs of one person and {self.stranger:.3f} "
                "between those of different people. Check that the faces are aligned, and the "
                "model's preprocessing."
            )
        # A person's own spread, drawn to the typical one where few photographs tell it.
        self.scales = np.full(self.count, scale, dtype=np.float32)
        found = (own - self.stranger) * pairs[several] / 2 + scale * _PRIOR
        self.scales[several] = np.maximum(found / (pairs[several] / 2 + _PRIOR), _LEAST * scale)

    def likeness(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield rows and their likeness (rows, P) to every person, a block of rows at a time.

        Neither the photograph nor its copies count for a person; −inf where nobody speaks for one.
        """
        rows = max(1, _ENTRIES // self.count)
        for start in range(0, len(self.unit), rows):
            part = slice(start, start + rows)
            sums, votes = self._copied_sums[part].tocoo(), self._copied_votes[part].tocoo()
            at = (sums.row, sums.col)
            left = self.own_votes[sums.col] - votes.data
            cosines = self.unit[part] @ self.sums.T
            alone = cosines[at] - sums.data
            cosines /= np.where(self.own_votes > _NOBODY, self.own_votes, np.nan)
            cosines[at] = np.divide(
                alone, left, out=np.full(len(left), np.nan), where=left > _NOBODY
            )
            cosines -= self.stranger
            cosines /= self.scales
            yield part, np.nan_to_num(cosines, copy=False, nan=-np.inf)

    def likeness_of_people(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield rows and the likeness (rows, P) of these people to every other one; −inf to self.

        Two halves of one person's photographs have likeness 1, however few they are.
        """
        spoken = self.own_votes > _NOBODY
        means = self.sums / np.maximum(self.own_votes, 1e-9)[:, None]
        root = np.sqrt(self.scales)
        rows = max(1, _ENTRIES // self.count)
        for start in range(0, self.count, rows):
            part = slice(start, min(start + rows, self.count))
            like = (means[part] @ means.T - self.stranger) / (root[part, None] * root)
            like[~spoken[part]] = -np.inf
            like[:, ~spoken] = -np.inf
            like[np.arange(like.shape[0]), np.arange(part.start, part.stop)] = -np.inf
            yield part, like


def limit_of_bulk(values: np.ndarray, deviations: float = 3.5) -> float:
    """Return the value from which on one stands out of ``values``, by its modified z-score.

    By the median and the median absolute deviation, which half of the values cannot move; B.
    Iglewicz and D. Hoaglin, How to Detect and Handle Outliers, 1993, who advise 3.5.
    """
    if not len(values):
        return np.inf
    median = float(np.median(values))
    return median + deviations * float(np.median(np.abs(values - median))) / 0.6745
