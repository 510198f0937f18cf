"""All four kinds of findings in a set of photographs, from their embeddings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from arcface_plus.evaluation.cleaning.duplicates import choose_kept, near_duplicates
from arcface_plus.evaluation.cleaning.findings import KINDS, THRESHOLDS, Finding, Kind
from arcface_plus.evaluation.cleaning.identities import one_person, two_people
from arcface_plus.evaluation.cleaning.labels import LabelScores, wrong_labels
from arcface_plus.evaluation.cleaning.people import People
from arcface_plus.evaluation.cleaning.photographs import Looks

_COPY = 0.4  # least likeness of a copy: a small one of low quality is hardly like its original


@dataclass(frozen=True)
class Found:
    """Hold the findings, strongest first within a kind, and the scores (N,) they come from.

    ``stranger`` and ``typical``: the mean cosine between different people, and the usual one
    between photographs of one.
    """

    findings: list[Finding]
    labels: LabelScores
    stranger: float
    typical: float


def find(
    embeddings: np.ndarray,
    labels: np.ndarray,
    looks: Looks,
    *,
    kinds: Collection[Kind] = KINDS,
    thresholds: Mapping[Kind, float] = THRESHOLDS,
) -> Found:
    """Return what is likely wrong in N photographs with ``embeddings`` (N, D), ``labels`` (N,).

    Near-duplicates are found first, for they share one vote in all that follows; then people with
    two labels, who do not count as each other's strangers; then wrong labels; then, among the
    other photographs, folders of two people. All four are sought whatever ``kinds`` are returned.

    Raises ValueError where the model does not tell these people apart.
    """
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = (embeddings / np.maximum(norms, 1e-12)).astype(np.float32)
    apart = People(unit, labels, np.arange(len(unit)))
    pairs, alike = near_duplicates(
        unit,
        looks.thumbnails,
        cosine=apart.stranger + _COPY * (apart.typical - apart.stranger),
        correlation=thresholds["duplicates"],
    )
    groups = _groups(pairs, len(unit))
    people = People(unit, labels, groups)
    same, likeness = one_person(people, threshold=thresholds["merge"])
    scores = wrong_labels(unit, labels, groups, same, threshold=thresholds["labels"])
    twofold = two_people(people, ~scores.suspect, threshold=thresholds["split"])
    found = [
        *_duplicates(pairs, alike, labels, scores, looks),
        *_labels(scores, labels),
        *_merges(same, likeness, labels),
        *[Finding("split", one.score, tuple(one.rows.tolist()), one.person) for one in twofold],
    ]
    wanted = [finding for finding in found if finding.kind in kinds]
    return Found(wanted, scores, people.stranger, people.typical)


def _groups(pairs: np.ndarray, count: int) -> np.ndarray:
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def _duplicates(
    pairs: np.ndarray, alike: np.ndarray, labels: np.ndarray, scores: LabelScores, looks: Looks
) -> list[Finding]:
    """Of copies, keep the one that is with the right person, then the largest."""
    order = np.lexsort((np.arange(len(labels)), -looks.size, -looks.pixels, scores.suspect))
    kept = choose_kept(pairs, order)
    pixels = {(a, b): s for (a, b), s in zip(pairs.tolist(), alike.tolist(), strict=True)}
    found = []
    for copy in np.flatnonzero(kept != np.arange(len(kept))).tolist():
        original = int(kept[copy])
        score = pixels[min(copy, original), max(copy, original)]
        other = None if labels[copy] == labels[original] else int(labels[original])
        found.append(Finding("duplicates", score, (copy,), int(labels[copy]), other, kept=original))
    return sorted(found, key=lambda each: -each.score)


def _labels(scores: LabelScores, labels: np.ndarray) -> list[Finding]:
    rows = np.flatnonzero(scores.suspect)
    rows = rows[np.argsort(-scores.score[rows], kind="stable")]
    return [
        Finding(
            "labels", float(scores.score[row]), (row,), int(labels[row]), int(scores.other[row])
        )
        for row in rows.tolist()
    ]


def _merges(same: np.ndarray, likeness: np.ndarray, labels: np.ndarray) -> list[Finding]:
    """Propose to move the photographs of the smaller of two folders into the larger one."""
    sizes = np.bincount(labels, minlength=len(same))
    found = []
    for first in np.flatnonzero(same > np.arange(len(same))).tolist():
        smaller, larger = sorted((first, int(same[first])), key=lambda person: sizes[person])
        rows = np.flatnonzero(labels == smaller)
        found.append(
            Finding("merge", float(likeness[first]), tuple(rows.tolist()), smaller, larger)
        )
    return sorted(found, key=lambda each: -each.score)
