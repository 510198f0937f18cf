"""Score pair sets: by a model, or from embeddings in files.

Shapes: N pairs, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from arcface_plus.data.pairs.people import PairNames, pair_names
from arcface_plus.data.pairs.sets import PairSet, load_pairs
from arcface_plus.evaluation.benchmark.discard import DiscardCurve
from arcface_plus.evaluation.benchmark.group_rates import GroupErrors
from arcface_plus.evaluation.embedding.cache import cached_embeddings, image_digest
from arcface_plus.evaluation.embedding.embed import (
    EmbeddingOptions,
    Progress,
    both_sides,
    embed_pairs,
)
from arcface_plus.evaluation.embedding.files import EmbeddedPairs, read_embedded_pairs
from arcface_plus.evaluation.embedding.set_files import origin_of
from arcface_plus.evaluation.pairs.comparison import PairedDifference
from arcface_plus.evaluation.pairs.dependence import Units, find_units
from arcface_plus.evaluation.pairs.distribution import distance_distribution
from arcface_plus.evaluation.pairs.intervals import (
    FarAdvice,
    Intervals,
    score_intervals,
)
from arcface_plus.evaluation.pairs.pca import verify_with_pca
from arcface_plus.evaluation.pairs.verification import (
    FAR_TARGETS,
    checked_pairs,
    squared_distances,
    verify_distances,
)
from arcface_plus.evaluation.report.section import ReportSection
from arcface_plus.models import model_hash
from arcface_plus.models.embedding_model import EmbeddingModel


class Scoring(NamedTuple):
    """Hold how pair sets are scored.

    ``root``: image folder of lists. ``folds``: None for those a set states, else 10. ``pca``:
    components to project to, if any. ``cache``: folder that keeps embeddings, if any.
    """

    root: Path | None = None
    folds: int | None = None
    fars: Sequence[float] = FAR_TARGETS
    pca: int | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Entry:
    """Hold one scored set: what it is, and its distances and result as the report takes them.

    ``source``: what made the embeddings. ``intervals``: at the result's FARs. ``advice``: where it
    was asked for. ``others``: the models it is compared to. ``names``: of images and people.
    ``norms`` (N,): the smaller norm of either pair's embeddings. ``groups``, ``discards``: of each
    column of groups and each quality score that was asked for.
    """

    facts: dict[str, Any]
    source: Path
    section: ReportSection
    units: Units
    intervals: Intervals
    names: PairNames
    norms: np.ndarray
    advice: FarAdvice | None = None
    others: tuple[Compared, ...] = ()
    groups: tuple[GroupErrors, ...] = ()
    discards: tuple[DiscardCurve, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return every number, and what it is of, as plain types that JSON can hold."""
        content = {**self.facts, **all_numbers(self.section, self.intervals)}
        if self.advice is not None:
            content["advice"] = self.advice.to_dict()
        if self.others:
            content["comparisons"] = [each.to_dict() for each in self.others]
        if self.groups:
            content["groups"] = [each.to_dict() for each in self.groups]
        if self.discards:
            content["error_versus_discard"] = [each.to_dict() for each in self.discards]
        return content


@dataclass(frozen=True)
class Compared:
    """Hold another model's entry, and how much better the first one is on the same pairs.

    ``adjusted_p``: after Holm's correction for all models and sets that were compared.
    """

    entry: Entry
    difference: PairedDifference
    adjusted_p: float

    def to_dict(self) -> dict[str, Any]:
        """Return every number as plain types that JSON can hold."""
        other = {**self.entry.facts, "accuracy": self.entry.section.result.accuracy}
        return {"other": other, **self.difference.to_dict(), "adjusted_p": self.adjusted_p}


class Against(NamedTuple):
    """The net that embeds the second image of each pair: a gallery that is not embedded again."""

    path: Path
    network: EmbeddingModel
    options: EmbeddingOptions


def all_numbers(section: ReportSection, intervals: Intervals) -> dict[str, Any]:
    """Return result, intervals and distribution view as plain types that JSON can hold."""
    return {
        **section.result.to_dict(),
        "intervals": intervals.to_dict(),
        "distribution": distance_distribution(section.distances, section.is_same).to_dict(),
    }


def score_files(files: Sequence[Path], lists: Sequence[Path], scoring: Scoring) -> list[Entry]:
    """Score embeddings in .npz files: each alone, each with its list, or one with all lists."""
    if len(files) == 1 and len(lists) > 1:
        files = list(files) * len(lists)
    if lists and len(lists) != len(files):
        raise ValueError(
            f"{len(files)} --embeddings and {len(lists)} lists of pairs do not go together: give "
            "one list for each file, one file for all lists, or no list."
        )
    chosen: list[Path | None] = [*lists] or [None] * len(files)
    several = len(set(files)) < len(files)
    return [
        _score_file(file, listed, scoring, named_by_list=several)
        for file, listed in zip(files, chosen, strict=True)
    ]


def score_model(
    path: Path,
    network: EmbeddingModel,
    opened: Sequence[tuple[Path, PairSet]],
    scoring: Scoring,
    options: EmbeddingOptions,
    show: Callable[[str], AbstractContextManager[Progress]],
    against: Against | None = None,
) -> list[Entry]:
    """Score pair sets with a model; all ranks together.

    ``path``, and the paths in ``opened``: what model and pair sets were read from. ``show``: a
    context that shows progress under a name. ``against``: what embeds second images instead.
    Raises ValueError where its embeddings are not as wide as the model's.
    """
    if against is not None:
        _check_widths(path, network, against)
    entries = []
    for source, pairs in opened:
        facts: dict[str, Any] = {
            "name": pairs.name,
            "pairs": str(source),
            "fingerprint": pairs.fingerprint(),
            "model": str(path),
            **vars(origin_of(network, flip=options.flip)),
            "precision": options.precision,
        }
        with show(pairs.name) as progress:
            sides = both_sides(_embeddings(network, pairs, scoring, options, progress), pairs)
        if against is not None:
            facts["against"] = {
                "model": str(against.path),
                **vars(origin_of(against.network, flip=against.options.flip)),
            }
            with show(f"{pairs.name}, {against.path.name}") as progress:
                old = _embeddings(against.network, pairs, scoring, against.options, progress)
            sides = sides[0], both_sides(old, pairs)[1]
        photographs = (pairs.index_a, pairs.index_b)
        held = EmbeddedPairs(
            *sides,
            pairs.is_same,
            pairs.folds,
            pairs.name,
            pairs.people(),
            photographs,
            pair_names(pairs),
        )
        entries.append(_entry(facts, path, held, scoring, pairs))
    return entries


def _check_widths(path: Path, network: EmbeddingModel, against: Against) -> None:
    dim, other = network.embedding_dim, against.network.embedding_dim
    if dim != other:
        raise ValueError(
            f"{path} makes embeddings of {dim} numbers, {against.path} of {other}: they cannot be "
            "compared."
        )


def _score_file(path: Path, listed: Path | None, scoring: Scoring, *, named_by_list: bool) -> Entry:
    held = read_embedded_pairs(path, listed)
    name = listed.stem if named_by_list and listed is not None else held.name
    facts = {"name": name, "embeddings": str(path)}
    if listed is not None:
        facts["pairs"] = str(listed)
    # With the images at hand, the report can show them.
    pairs = load_pairs(listed, scoring.root) if listed and scoring.root else None
    return _entry(facts, path, held, scoring, pairs)


def _entry(
    facts: dict[str, Any],
    source: Path,
    held: EmbeddedPairs,
    scoring: Scoring,
    pairs: PairSet | None,
) -> Entry:
    folds = scoring.folds or held.folds or 10
    units = find_units(held.is_same, people=held.people, photographs=held.photographs)
    try:
        a, b, is_same = checked_pairs(held.embeddings_a, held.embeddings_b, held.is_same)
        if scoring.pca is None:
            distances = squared_distances(a, b)
            result = verify_distances(distances, is_same, folds, fars=scoring.fars)
        else:
            facts["pca"] = scoring.pca
            result, distances = verify_with_pca(
                a, b, is_same, scoring.pca, folds, fars=scoring.fars
            )
    except ValueError as error:  # of several sets, say which
        raise ValueError(f"{facts['name']}: {error}") from error
    intervals = score_intervals(
        distances, is_same, result.thresholds, units, fars=list(result.tar_at_far)
    )
    section = ReportSection(facts["name"], pairs, distances, is_same, result, units=units)
    norms = np.minimum(*(np.linalg.norm(np.asarray(side, float), axis=1) for side in (a, b)))
    return Entry(facts, source, section, units, intervals, held.names, norms)


def _embeddings(
    network: EmbeddingModel,
    pairs: PairSet,
    scoring: Scoring,
    options: EmbeddingOptions,
    progress: Progress,
) -> np.ndarray:
    """Embed the images that ``pairs`` uses, or find them in the cache."""
    make = partial(embed_pairs, network, pairs, options, progress=progress)
    if scoring.cache is None:
        return make()
    facts: dict[str, str | bool] = {
        "model": model_hash(network),
        "preprocessing": network.preprocessing.to_json(),
        "pairs": pairs.fingerprint(),
        "images": image_digest(pairs),
        "flip": options.flip,
        "precision": options.precision,
        "resize": "cubic or area" if options.resize else "none",
        "device": torch.device(options.device or "cpu").type,
    }
    shape = (len(pairs.used_images()), network.embedding_dim)
    return cached_embeddings(scoring.cache, facts, shape, make)
