"""Identification among distractors, as in MegaFace: one mate among N strangers.

Shapes: P probes, N distractors, D dimensions.

Every ordered pair of two images (i, j) of one person is a search: i looks for j among j and the N
distractors. Verification compares each such pair of images, once, with all P × N pairs of a probe
and a distractor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from arcface_plus.evaluation.search.products import (
    exact_products,
    product_error,
    unit_rows,
)
from arcface_plus.evaluation.search.score_rates import (
    TopScores,
    rates_by_text,
    scores_needed,
    tar_at_far_of_scores,
)
from arcface_plus.evaluation.search.top_matches import (
    Describe,
    find_mates,
    raise_best,
    tiles,
)

MEGAFACE_FARS = (1e-6, 1e-5, 1e-4, 1e-3)


@dataclass(frozen=True)
class DistractorResult:
    """Hold what ``identify_among_distractors`` measured.

    - ``rank1``: share of searches whose mate scores above every distractor; a tie is a miss.
    - ``tar_at_far``, ``far_reached``, ``tar_thresholds`` (cosine), ``coarse_fars``,
      ``refused_fars``: as ``evaluation.templates.TemplateResult``.
    - ``left_out``: probes that are the only image of their person.
    """

    rank1: float
    tar_at_far: dict[float, float]
    far_reached: dict[float, float]
    tar_thresholds: dict[float, float]
    coarse_fars: tuple[float, ...]
    refused_fars: dict[float, int]
    people: int
    probes: int
    left_out: int
    distractors: int
    searches: int
    genuine_pairs: int
    impostor_pairs: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain types that JSON can hold; rates become text keys, infinity becomes None."""
        return {
            "rank1": self.rank1,
            "tar_at_far": rates_by_text(self.tar_at_far),
            "far_reached": rates_by_text(self.far_reached),
            "tar_thresholds": rates_by_text(self.tar_thresholds),
            "coarse_fars": list(self.coarse_fars),
            "refused_fars": rates_by_text(self.refused_fars),
            "people": self.people,
            "probes": self.probes,
            "left_out": self.left_out,
            "distractors": self.distractors,
            "searches": self.searches,
            "genuine_pairs": self.genuine_pairs,
            "impostor_pairs": self.impostor_pairs,
        }


class TopCollector:
    """Keep the ``needed`` largest of a stream of scores, and all that may be larger than they are.

    Scores are wrong by ``error`` at most. Memory: about 24 bytes × ``needed`` beyond what is added
    at once.
    """

    def __init__(self, needed: int, error: float) -> None:
        self._needed = needed
        self._error = error
        self._values = [np.empty(0, dtype=np.float32)]
        self._pairs = [np.empty(0, dtype=np.int64)]
        self._held = 0
        self.floor = np.float32(-np.inf)

    def add(self, values: np.ndarray, pairs: np.ndarray) -> None:
        """Add scores (n,) float32, none below ``floor``, and the numbers of their pairs."""
        self._values.append(values)
        self._pairs.append(pairs)
        self._held += len(values)
        if self._held > 2 * self._needed + (1 << 16):
            self._compact()

    def finish(self, total: int) -> TopScores:
        """Return the largest of ``total`` scores."""
        self._compact()
        return TopScores(self._values[0], self._pairs[0], total)

    def _compact(self) -> None:
        values, pairs = np.concatenate(self._values), np.concatenate(self._pairs)
        if len(values) > self._needed:
            place = len(values) - self._needed
            lowest = np.float32(np.partition(values, place)[place] - 2 * self._error)
            self.floor = max(self.floor, np.nextafter(lowest, np.float32(-np.inf)))
            kept = values >= self.floor
            values, pairs = values[kept], pairs[kept]
        self._values, self._pairs, self._held = [values], [pairs], len(values)


def identify_among_distractors(
    probes: np.ndarray,
    labels: np.ndarray,
    distractors: np.ndarray,
    *,
    fars: Sequence[float] = MEGAFACE_FARS,
    describe_probe: Describe = lambda row: f"probe {row}",
    describe_distractor: Describe = lambda row: f"distractor {row}",
) -> DistractorResult:
    """Search each probe's person among the distractors, leaving one image out at a time.

    ``probes`` (P, D) and ``distractors`` (N, D): embeddings, normalised here; ``labels`` (P,) say
    who the probes show. Memory beyond the embeddings: about 24 bytes × P × N × the largest FAR.

    Raises ValueError for counts or dimensions that differ, embeddings without direction, and where
    no person has two images.
    """
    labels = np.asarray(labels)
    _check(probes, labels, distractors)
    _, person, counts = np.unique(labels, return_inverse=True, return_counts=True)
    used = np.flatnonzero(counts[person] > 1)
    if not used.size:
        raise ValueError(
            f"Each of the {len(probes)} probes is the only image of its person; leaving one out "
            "needs at least one person with two."
        )
    unit = unit_rows(probes[used], lambda row: describe_probe(int(used[row])))
    a, b = _pairs_within(person[used])
    genuine = exact_products(unit, a, unit, b)
    impostors = len(unit) * len(distractors)
    error = product_error(unit.shape[1])
    needed = scores_needed(impostors, fars)
    best, top = _scan(unit, distractors, needed, error, describe_distractor)

    def exact(pairs: np.ndarray) -> np.ndarray:
        rows, columns = np.divmod(pairs, len(distractors))
        others, place = np.unique(columns, return_inverse=True)
        return exact_products(
            unit, rows, unit_rows(distractors[others], describe_distractor), place
        )

    reached, refused = tar_at_far_of_scores(genuine, top, fars, error=error, exact=exact)
    hits = np.count_nonzero(genuine > best[a]) + np.count_nonzero(genuine > best[b])
    return DistractorResult(
        rank1=float(hits / (2 * len(a))),
        tar_at_far={point.target: point.tar for point in reached},
        far_reached={point.target: point.far for point in reached},
        tar_thresholds={point.target: point.threshold for point in reached},
        coarse_fars=tuple(point.target for point in reached if point.coarse),
        refused_fars={point.target: point.needed for point in refused},
        people=int(np.count_nonzero(counts > 1)),
        probes=len(unit),
        left_out=len(probes) - len(unit),
        distractors=len(distractors),
        searches=2 * len(a),
        genuine_pairs=len(a),
        impostor_pairs=impostors,
    )


def _scan(
    unit: np.ndarray, distractors: np.ndarray, needed: int, error: float, describe: Describe
) -> tuple[np.ndarray, TopScores]:
    """Return each probe's best distractor score (P,), and the largest scores of all."""
    best = np.full(len(unit), -np.inf)
    collector = TopCollector(needed, error)
    everyone = np.ones(len(unit), dtype=bool)
    for tile in tiles(unit, distractors, describe):
        part = slice(tile.first_probe, tile.first_probe + len(tile.probes))
        raise_best(tile, best[part], everyone[part], error)
        row, column = np.nonzero(tile.cells >= collector.floor)
        pairs = (row + tile.first_probe) * len(distractors) + column + tile.first
        collector.add(tile.cells[row, column], pairs)
    return best, collector.finish(len(unit) * len(distractors))


def _pairs_within(person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs of rows (a < b) of one person."""
    mates = find_mates(person, person)
    once = mates.probes < mates.gallery
    return mates.probes[once], mates.gallery[once]


def _check(probes: np.ndarray, labels: np.ndarray, distractors: np.ndarray) -> None:
    if np.ndim(probes) != 2 or labels.shape != (len(probes),) or not len(probes):
        raise ValueError(
            f"Probes must be (rows, dimensions) with a label a row, but are {np.shape(probes)} and "
            f"{labels.shape}."
        )
    if np.ndim(distractors) != 2 or not len(distractors):
        raise ValueError(
            f"Distractors must be (rows, dimensions), at least one, but are "
            f"{np.shape(distractors)}."
        )
    if probes.shape[1] != distractors.shape[1]:
        raise ValueError(
            f"Probes of {probes.shape[1]} dimensions and distractors of {distractors.shape[1]} "
            "cannot be compared; embed both with one model."
        )
