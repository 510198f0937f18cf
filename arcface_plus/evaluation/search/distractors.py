"""Identification among distractors, as in MegaFace: one mate among N strangers.

Shapes: P probes, N distractors, D dimensions.

Every ordered pair of two images (i, j) of one person is a search: i looks for j among j and the N
distractors. Verification compares each such pair of images, once, with all P × N pairs of a probe
and a distractor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arcface_plus.evaluation.pairs.roc import TarAtFar, distances_needed, tar_at_far_of_scores
from arcface_plus.evaluation.pairs.verification import row_products
from arcface_plus.evaluation.search.products import Describe, check_sets, unit_rows
from arcface_plus.evaluation.search.top_matches import find_mates, tiles

MEGAFACE_FARS = (1e-6, 1e-5, 1e-4, 1e-3)
_SPARE = 1 << 16  # scores held beyond those needed before the smaller ones are dropped


@dataclass(frozen=True)
class DistractorResult(TarAtFar):
    """Hold what ``identify_among_distractors`` measured.

    - ``rank1``: share of searches whose mate scores above every distractor; a tie is a miss.
    - ``tar_thresholds``: cosines above which pairs pass.
    - ``left_out``: probes that are the only image of their person.
    """

    rank1: float
    people: int
    probes: int
    left_out: int
    distractors: int
    searches: int
    genuine_pairs: int
    impostor_pairs: int


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
    who the probes show. Memory beyond the embeddings: about 48 bytes × P × N × the largest FAR.

    Raises ValueError for counts or dimensions that differ, embeddings without direction, and where
    no person has two images.
    """
    labels = np.asarray(labels)
    check_sets({"probes": (probes, labels), "distractors": (distractors, None)})
    _, person, counts = np.unique(labels, return_inverse=True, return_counts=True)
    used = np.flatnonzero(counts[person] > 1)
    if not used.size:
        raise ValueError(
            f"Each of the {len(probes)} probes is the only image of its person; leaving one out "
            "needs at least one person with two."
        )
    unit = unit_rows(probes[used], lambda row: describe_probe(int(used[row])))
    a, b = find_mates(person[used], person[used])  # each pair both ways: a looks for b
    other = a != b
    a, b = a[other], b[other]
    mate = row_products(unit, a, unit, b)
    genuine, impostors = mate[a < b], len(unit) * len(distractors)
    needed = distances_needed(impostors, fars)
    best, largest = _scan(unit, distractors, needed, describe_distractor)
    return DistractorResult(
        **vars(tar_at_far_of_scores(genuine, largest, fars, impostors=impostors)),
        rank1=float(np.mean(mate > best[a])),
        people=int(np.count_nonzero(counts > 1)),
        probes=len(unit),
        left_out=len(probes) - len(unit),
        distractors=len(distractors),
        searches=len(mate),
        genuine_pairs=len(genuine),
        impostor_pairs=impostors,
    )


def _scan(
    unit: np.ndarray, distractors: np.ndarray, needed: int, describe: Describe
) -> tuple[np.ndarray, np.ndarray]:
    """Return each probe's best distractor score (P,), and the ``needed`` largest scores of all."""
    best = np.full(len(unit), -np.inf)
    held, count, floor = [np.empty(0)], 0, -np.inf
    for part, _, cells in tiles(unit, distractors, describe):
        best[part] = np.maximum(best[part], cells.max(axis=1))
        held.append(cells[cells > floor])
        count += len(held[-1])
        if count > 2 * needed + _SPARE:
            held = [np.partition(np.concatenate(held), count - needed)[count - needed :]]
            count, floor = needed, held[0][0]
    return best, np.concatenate(held)
