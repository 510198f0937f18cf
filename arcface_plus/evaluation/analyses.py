"""What can be added to scored sets: other models, thresholds, groups, discard curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from arcface_plus.evaluation.benchmark.columns import read_groupings, read_qualities
from arcface_plus.evaluation.benchmark.discard import discard_curve
from arcface_plus.evaluation.benchmark.group_rates import group_errors
from arcface_plus.evaluation.pairs.comparison import PairedDifference, accuracy_difference, holm
from arcface_plus.evaluation.pairs.intervals import threshold_at_far
from arcface_plus.evaluation.scoring import Compared, Entry

NORM = "norm"


def compare(entries: Sequence[Entry], others: Sequence[Sequence[Entry]]) -> list[Entry]:
    """Return ``entries`` with their comparison to each other model's, pair by pair.

    ``others``: of each model, its entries on the same sets in the same order.
    """
    found = [[_difference(*both) for both in zip(entries, of, strict=True)] for of in others]
    adjusted = iter(holm([each.p for of_model in found for each in of_model]))
    compared = [
        [
            Compared(entry, difference, next(adjusted))
            for entry, difference in zip(of, differences, strict=True)
        ]
        for of, differences in zip(others, found, strict=True)
    ]
    return [
        replace(entry, others=tuple(each[number] for each in compared))
        for number, entry in enumerate(entries)
    ]


def advise(entries: Sequence[Entry], far: float) -> list[Entry]:
    """Return ``entries`` with the threshold for ``far``."""
    advised = []
    for entry in entries:
        try:
            found = threshold_at_far(
                entry.section.distances, entry.section.is_same, entry.units, far
            )
        except ValueError as error:
            raise ValueError(f"--advise-far, {entry.facts['name']}: {error}") from error
        advised.append(replace(entry, advice=found))
    return advised


def add_groups(entries: Sequence[Entry], path: Path, cosine: float | None = None) -> list[Entry]:
    """Return ``entries`` with the error rates of each column of ``people.csv``.

    ``cosine``: the threshold; None for that of the advice, or else of the smallest FAR of the
    result that ten false accepts show.

    Raises ValueError where people have no names, and as ``read_groupings`` does.
    """
    added = []
    for entry in entries:
        section, people = entry.section, entry.names.people
        if people is None:
            raise ValueError(
                f"{entry.facts['name']}: error rates by group need people by name: give a list of "
                "pairs that names people, or paths PERSON/IMAGE, as --pairs."
            )
        errors = group_errors(
            read_groupings(path, people),
            section.distances,
            section.is_same,
            *chosen_threshold(entry, cosine),
        )
        added.append(replace(entry, groups=tuple(errors)))
    return added


def add_discards(
    entries: Sequence[Entry], qualities: Sequence[str], cosine: float | None = None
) -> list[Entry]:
    """Return ``entries`` with a curve of each quality: ``norm``, or the columns of CSV files.

    ``cosine``: as in ``add_groups``. Raises ValueError as ``read_qualities`` and ``discard_curve``
    do, for images without names, and for two qualities of one name.
    """
    added = []
    for entry in entries:
        section = entry.section
        threshold, words = chosen_threshold(entry, cosine)
        genuine = np.flatnonzero(section.is_same)
        people = entry.names.people
        a, b = people or ([], [])
        names = None if people is None else ([a[i] for i in genuine], [b[i] for i in genuine])
        curves = [
            discard_curve(
                name, scores[genuine], section.distances[genuine], threshold, words, names
            )
            for name, scores in _scores(entry, qualities).items()
        ]
        added.append(replace(entry, discards=tuple(curves)))
    return added


def chosen_threshold(entry: Entry, cosine: float | None = None) -> tuple[float, str]:
    """Return the threshold (squared L2) for groups and discards, and how it was chosen.

    Raises ValueError where no FAR can be measured.
    """
    if cosine is not None:
        return 2 - 2 * cosine, "given"
    if entry.advice is not None:
        return entry.advice.threshold, f"FAR {entry.advice.far:g} on all impostor pairs"
    result = entry.section.result
    sure = [
        far
        for far, at in result.tar_thresholds.items()
        if far not in result.coarse_fars and math.isfinite(at)
    ]
    if not sure:
        raise ValueError(
            f"{entry.facts['name']}: no FAR of --far is shown by ten false accepts, so it gives no "
            "threshold; give --threshold, --advise-far, or larger rates as --far."
        )
    return result.tar_thresholds[min(sure)], f"FAR {min(sure):g} on all impostor pairs"


def _difference(entry: Entry, other: Entry) -> PairedDifference:
    mine, its = entry.section, other.section
    if mine.is_same.tolist() != its.is_same.tolist():
        raise ValueError(
            f"{entry.source} and {other.source} do not hold the same pairs: their labels differ. "
            "Embed the same pair set with both."
        )
    return accuracy_difference(
        mine.distances,
        mine.result.thresholds,
        its.distances,
        its.result.thresholds,
        mine.is_same,
        entry.units,
    )


def _scores(entry: Entry, qualities: Sequence[str]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for quality in qualities:
        if quality == NORM:
            columns = {NORM: entry.norms}
        elif entry.names.images is None:
            raise ValueError(
                f"{entry.facts['name']}: {quality} gives quality by the name of an image, but the "
                "images have none; give a list as --pairs."
            )
        else:
            columns = read_qualities(quality, entry.names.images)
        if twice := sorted(set(columns) & set(found)):
            raise ValueError(f"the quality {twice[0]!r} is there twice; rename a column.")
        found |= columns
    return found
