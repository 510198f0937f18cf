"""Score pair sets for ``arcface-plus verify``: by a model, or from embeddings in files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

    from arcface_plus.data.pairs.sets import PairSet
    from arcface_plus.evaluation.pairs.comparison import PairedDifference
    from arcface_plus.evaluation.pairs.dependence import Units
    from arcface_plus.evaluation.pairs.intervals import (
        FarAdvice,
        Intervals,
    )
    from arcface_plus.evaluation.pairs.verification import VerificationResult
    from arcface_plus.models.embedding_model import EmbeddingModel
    from arcface_plus.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Scoring:
    """Hold what ``verify`` was asked for: how to embed, and how to score."""

    root: Path | None
    folds: int | None
    fars: tuple[float, ...]
    pca: int | None
    flip: bool | None
    batch_size: int
    precision: str
    resize: bool
    cache: Path | None


@dataclass(frozen=True)
class Entry:
    """Hold one scored set: what it is, squared distances (N,) and labels of its pairs, the result.

    ``source``: what made the embeddings. ``advice``, ``comparison``: where they were asked for.
    """

    facts: dict[str, Any]
    source: Path
    distances: np.ndarray
    is_same: np.ndarray
    result: VerificationResult
    units: Units
    intervals: Intervals
    pairs: PairSet | None = None
    advice: FarAdvice | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Comparison:
    """Hold the other model's entry and the difference to it (ours minus the other)."""

    other: Entry
    difference: PairedDifference = field(repr=False)


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
    sets: Sequence[Path],
    scoring: Scoring,
    *,
    preprocessing: Preprocessing | None,
    device: torch.device,
) -> list[Entry]:
    """Score pair sets with a model; all ranks together."""
    from arcface_plus.data.pairs.sets import load_pairs
    from arcface_plus.evaluation.embedding.embed import both_sides
    from arcface_plus.evaluation.pairs.dependence import find_units
    from arcface_plus.models import load_model

    # All sets are opened first: a wrong path should not show after an hour of embedding.
    loaded = [load_pairs(each, scoring.root) for each in sets]
    network = load_model(path, preprocessing=preprocessing)
    flip = network.preprocessing.flip_sum if scoring.flip is None else scoring.flip
    make = _embedder(path, network, scoring, flip, device)
    entries: list[Entry] = []
    for source, pairs in zip(sets, loaded, strict=True):
        facts: dict[str, str | bool] = {
            "name": pairs.name,
            "pairs": str(source),
            "fingerprint": pairs.fingerprint(),
            "model": str(path),
            "flip": flip,
            "precision": scoring.precision,
        }
        units = find_units(
            pairs.is_same, people=pairs.people(), photographs=(pairs.index_a, pairs.index_b)
        )
        sides = both_sides(make(pairs), pairs)
        folds = scoring.folds or pairs.folds or 10
        entries.append(
            _entry(facts, path, sides, pairs.is_same, units, folds, scoring, pairs=pairs)
        )
    return entries


def compare(entries: Sequence[Entry], others: Sequence[Entry]) -> list[Entry]:
    """Return ``entries`` with their comparison to the other model's, pair by pair."""
    from dataclasses import replace

    from arcface_plus.evaluation.pairs.comparison import accuracy_difference

    compared = []
    for entry, other in zip(entries, others, strict=True):
        if entry.is_same.tolist() != other.is_same.tolist():
            raise ValueError(
                f"{entry.source} and {other.source} do not hold the same pairs: their labels "
                "differ. Embed the same pair set with both."
            )
        difference = accuracy_difference(
            entry.distances,
            entry.result.thresholds,
            other.distances,
            other.result.thresholds,
            entry.is_same,
            entry.units,
        )
        compared.append(replace(entry, comparison=Comparison(other, difference)))
    return compared


def advise(entries: Sequence[Entry], far: float) -> list[Entry]:
    """Return ``entries`` with the threshold for ``far``."""
    from dataclasses import replace

    from arcface_plus.evaluation.pairs.intervals import threshold_at_far

    advised = []
    for entry in entries:
        try:
            found = threshold_at_far(entry.distances, entry.is_same, entry.units, far)
        except ValueError as error:
            raise ValueError(f"--advise-far, {entry.facts['name']}: {error}") from error
        advised.append(replace(entry, advice=found))
    return advised


def _score_file(path: Path, listed: Path | None, scoring: Scoring, *, named_by_list: bool) -> Entry:
    from arcface_plus.data.pairs.sets import load_pairs
    from arcface_plus.evaluation.embedding.files import read_embedded_pairs
    from arcface_plus.evaluation.pairs.dependence import find_units

    held = read_embedded_pairs(path, listed)
    name = listed.stem if named_by_list and listed is not None else held.name
    facts = {"name": name, "embeddings": str(path)}
    if listed is not None:
        facts["pairs"] = str(listed)
    # With the images at hand, the report can show them.
    pairs = load_pairs(listed, scoring.root) if listed and scoring.root else None
    units = find_units(held.is_same, people=held.people, photographs=held.photographs)
    sides = (held.embeddings_a, held.embeddings_b)
    folds = scoring.folds or held.folds or 10
    return _entry(facts, path, sides, held.is_same, units, folds, scoring, pairs=pairs)


def _entry(
    facts: dict[str, Any],
    source: Path,
    sides: tuple[np.ndarray, np.ndarray],
    is_same: np.ndarray,
    units: Units,
    folds: int,
    scoring: Scoring,
    *,
    pairs: PairSet | None,
) -> Entry:
    from arcface_plus.evaluation.pairs.intervals import score_intervals
    from arcface_plus.evaluation.pairs.verification import (
        checked_pairs,
        squared_distances,
        verify_distances,
    )

    try:
        if scoring.pca is None:
            a, b, is_same = checked_pairs(*sides, is_same)
            distances = squared_distances(a, b)
            result = verify_distances(distances, is_same, folds, fars=scoring.fars)
        else:
            from arcface_plus.evaluation.pairs.pca import verify_with_pca

            facts["pca"] = scoring.pca
            result, distances = verify_with_pca(
                *sides, is_same, scoring.pca, folds, fars=scoring.fars
            )
    except ValueError as error:  # of several sets, say which
        raise ValueError(f"{facts['name']}: {error}") from error
    intervals = score_intervals(
        distances, is_same, result.thresholds, units, fars=list(result.tar_at_far)
    )
    return Entry(facts, source, distances, is_same, result, units, intervals, pairs)


def _embedder(
    path: Path, network: EmbeddingModel, scoring: Scoring, flip: bool, device: torch.device
) -> Callable[[PairSet], np.ndarray]:
    """Return a function that embeds the images a pair set uses, or finds them in the cache."""
    from arcface_plus.cli.progress import counted
    from arcface_plus.distributed import rank
    from arcface_plus.evaluation.embedding.cache import (
        cached_embeddings,
        image_digest,
    )
    from arcface_plus.evaluation.embedding.embed import (
        SelectedImages,
        embed,
    )
    from arcface_plus.models import model_hash

    def make(pairs: PairSet) -> np.ndarray:
        with counted(pairs.name, enabled=rank() == 0) as progress:
            return embed(
                network,
                SelectedImages(pairs.images, pairs.used_images()),
                flip=flip,
                batch_size=scoring.batch_size,
                device=device,
                precision=scoring.precision,
                resize=scoring.resize,
                progress=progress,
            )

    if scoring.cache is None:
        return make
    folder, weights = scoring.cache, model_hash(network)

    def find(pairs: PairSet) -> np.ndarray:
        facts: dict[str, str | bool] = {
            "model": weights,
            "preprocessing": network.preprocessing.to_json(),
            "pairs": pairs.fingerprint(),
            "images": image_digest(pairs),
            "flip": flip,
            "precision": scoring.precision,
            "resize": scoring.resize,
            "device": device.type,
        }
        shape = (len(pairs.used_images()), network.embedding_dim)
        return cached_embeddings(folder, facts, shape, lambda: make(pairs))

    return find
