"""What the report shows of one pair set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from arcface_plus.data.pairs.sets import PairSet
from arcface_plus.evaluation.benchmark.discard import DiscardCurve
from arcface_plus.evaluation.benchmark.group_rates import GroupErrors
from arcface_plus.evaluation.pairs.dependence import Units, find_units
from arcface_plus.evaluation.pairs.intervals import Intervals, score_intervals
from arcface_plus.evaluation.pairs.verification import VerificationResult

_POINTS = 160  # of a curve


@dataclass(frozen=True)
class MainNumbers:
    """Hold what is left of a result in a training log: enough to stand beside the model."""

    accuracy: float
    accuracy_std: float
    auc: float
    eer: float


Baseline = VerificationResult | MainNumbers


@dataclass(frozen=True)
class ReportSection:
    """Hold what the report shows of one pair set.

    - ``pairs``: names people and shows photographs; None where there are only embeddings.
    - ``distances`` (N,) squared L2 of unit vectors, ``is_same`` (N,) bool, in the pairs' order.
    - ``result``: of these distances.
    - ``baselines``: name → result on the same pairs (or what a log kept of it), shown beside the
      model.
    - ``history``: (step, accuracy) during training.
    - ``units``: what is independent, where that is known better than from ``pairs``.
    - ``groups``, ``discards``: error rates by group, curves of quality scores.

    Raises ValueError for arrays that do not fit together.
    """

    name: str
    pairs: PairSet | None
    distances: np.ndarray
    is_same: np.ndarray
    result: VerificationResult
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    history: Sequence[tuple[int, float]] = ()
    units: Units | None = None
    groups: Sequence[GroupErrors] = ()
    discards: Sequence[DiscardCurve] = ()

    def __post_init__(self) -> None:
        where, distances, is_same = f"Section {self.name!r}", self.distances, self.is_same
        if distances.ndim != 1 or distances.shape != is_same.shape:
            raise ValueError(
                f"{where}: distances and is_same must be (N,) both, but are {distances.shape} and "
                f"{is_same.shape}."
            )
        if is_same.dtype != np.bool_:
            raise ValueError(f"{where}: is_same must be bool, but is {is_same.dtype}.")
        if not np.isfinite(distances).all() or distances.min() < 0 or distances.max() > 4 + 1e-6:
            raise ValueError(
                f"{where}: distances must be squared L2 between unit vectors, 0 to 4, but range "
                f"from {distances.min():g} to {distances.max():g}."
            )
        counts = (int(is_same.sum()), int((~is_same).sum()))
        stated = (self.result.genuine_pairs, self.result.impostor_pairs)
        if counts != stated:
            raise ValueError(
                f"{where}: {counts} genuine and impostor pairs, but its result is of {stated}; "
                "give the distances the result was made from."
            )
        if self.pairs is not None and not np.array_equal(self.pairs.is_same, is_same):
            raise ValueError(f"{where}: is_same differs from that of its pairs; keep their order.")

    @cached_property
    def intervals(self) -> Intervals:
        """The intervals of the accuracy and of the curve.

        FARs are k of the impostor pairs, even on a log axis, and the targets of the result.
        """
        pairs, result = self.pairs, self.result
        units = self.units or find_units(
            self.is_same,
            people=None if pairs is None else pairs.people(),
            photographs=None if pairs is None else (pairs.index_a, pairs.index_b),
        )
        counts = np.round(np.geomspace(1, result.impostor_pairs, _POINTS)).astype(np.int64)
        fars = np.union1d(counts / result.impostor_pairs, list(result.tar_at_far))
        return score_intervals(self.distances, self.is_same, result.thresholds, units, fars=fars)

    @cached_property
    def curved(self) -> dict[str, VerificationResult]:
        """The baselines that have a curve."""
        return {
            name: each
            for name, each in self.baselines.items()
            if isinstance(each, VerificationResult)
        }
