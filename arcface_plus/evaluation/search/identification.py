"""1:N identification: rank-k of a closed set, TPIR at fixed FPIR of an open set.

Shapes: P probes, G gallery rows, N distractors, D dimensions.

A probe with a row of its person in the gallery is a mated search; one without is a non-mated
search, where every candidate is wrong. Ranks and rates are exact (``evaluation.search``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arcface_plus.data.ijb_meta import Subjects
from arcface_plus.evaluation.pairs.roc import Record, distances_needed, tar_at_far_of_scores
from arcface_plus.evaluation.search.products import Describe, EmbeddingSets, check_sets, unit_rows
from arcface_plus.evaluation.search.templates import Templates
from arcface_plus.evaluation.search.top_matches import Searches, search_gallery

RANKS = (1, 5, 10)
FPIRS = (1e-2, 1e-1)


@dataclass(frozen=True)
class IdentificationResult(Record):
    """Hold what ``identify`` measured.

    - ``rank_rates``: k → share of mated searches with a mate among the best k, an other person of
      equal score ranking before the mate. Of several mates in the gallery the best counts.
    - ``tpir``: FPIR target → share of mated searches whose mate is first and scores above the
      threshold: the smallest at which no more than the target share of non-mated searches return
      anyone.
    - ``fpir_reached``, ``tpir_thresholds`` (cosine), ``coarse_fpirs`` (fewer than ten false
      positives allowed), ``refused_fpirs`` (target → non-mated searches needed).
    """

    rank_rates: dict[int, float]
    tpir: dict[float, float]
    fpir_reached: dict[float, float]
    tpir_thresholds: dict[float, float]
    coarse_fpirs: tuple[float, ...]
    refused_fpirs: dict[float, int]
    mated: int
    non_mated: int
    gallery: int
    distractors: int


def identify(
    probes: np.ndarray,
    probe_labels: np.ndarray,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    *,
    distractors: np.ndarray | None = None,
    ranks: Sequence[int] = RANKS,
    fpirs: Sequence[float] = FPIRS,
    describe_probe: Describe = lambda row: f"probe {row}",
    describe_gallery: Describe = lambda row: f"gallery row {row}",
    describe_distractor: Describe = lambda row: f"distractor {row}",
) -> IdentificationResult:
    """Search gallery and distractors for each probe and state rank-k and TPIR@FPIR.

    ``probes`` (P, D), ``gallery`` (G, D), ``distractors`` (N, D): embeddings, normalised here; the
    labels (P,) and (G,) say who they show, distractors are nobody.

    Raises ValueError for counts or dimensions that differ, embeddings without direction, ranks
    below 1, FPIRs outside (0, 1], and where no probe has its person in the gallery.
    """
    strangers = 0 if distractors is None else len(distractors)
    sets: EmbeddingSets = {
        "probes": (probes, probe_labels),
        "gallery": (gallery, gallery_labels),
    }
    if distractors is not None and strangers:
        sets["distractors"] = (distractors, None)
    check_sets(sets)
    _check_targets(ranks, fpirs)
    if not np.isin(probe_labels, gallery_labels).any():
        raise ValueError(
            f"None of the {len(probes)} probes shows a person of the gallery ({len(gallery)} "
            "rows); check that both name people alike."
        )
    searches = search_gallery(
        unit_rows(probes, describe_probe),
        np.asarray(probe_labels),
        gallery,
        np.asarray(gallery_labels),
        distractors=distractors,
        describe=describe_gallery,
        describe_distractor=describe_distractor,
    )
    return _result(searches, ranks, fpirs, len(gallery), strangers)


def identify_templates(
    templates: Templates,
    gallery: Subjects,
    probes: Subjects,
    *,
    ranks: Sequence[int] = RANKS,
    fpirs: Sequence[float] = FPIRS,
) -> IdentificationResult:
    """Search the templates of ``gallery`` for those of ``probes``; as ``identify`` otherwise."""
    return identify(
        templates.vectors[templates.rows_of(probes.templates)],
        probes.subjects,
        templates.vectors[templates.rows_of(gallery.templates)],
        gallery.subjects,
        ranks=ranks,
        fpirs=fpirs,
    )


def _result(
    searches: Searches, ranks: Sequence[int], fpirs: Sequence[float], gallery: int, distractors: int
) -> IdentificationResult:
    mated = searches.rank > 0
    rank = searches.rank[mated]
    # A mate behind an other person is never found, however low the threshold.
    found = tar_at_far_of_scores(
        np.where(rank == 1, searches.mate[mated], -np.inf), searches.other[~mated], fpirs
    )
    return IdentificationResult(
        rank_rates={int(k): float(np.mean(rank <= k)) for k in ranks},
        tpir=found.tar_at_far,
        fpir_reached=found.far_reached,
        tpir_thresholds=found.tar_thresholds,
        coarse_fpirs=found.coarse_fars,
        refused_fpirs=found.refused_fars,
        mated=len(rank),
        non_mated=len(mated) - len(rank),
        gallery=gallery,
        distractors=distractors,
    )


def _check_targets(ranks: Sequence[int], fpirs: Sequence[float]) -> None:
    for rank in ranks:
        if rank < 1:
            raise ValueError(f"A rank is a whole number from 1 on, but {rank} was asked for.")
    distances_needed(0, fpirs)  # refuses wrong rates before the work
