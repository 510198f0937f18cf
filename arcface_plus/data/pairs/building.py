"""Make balanced verification pairs of people who are in one fold only.

A pair set that models are compared on should have as many genuine as impostor pairs in every fold,
nobody in two folds (a threshold chosen with the help of a person's photographs is easy on that
person), and people who count alike. The same images and seed give the same pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, islice
from math import comb
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arcface_plus.data.folder import ImageFolder
from arcface_plus.data.pairs.lists import text_lines

PAIRS_PER_FOLD = 300
_FEW = 4  # where the pairs wanted are more than one in so many, all are listed and drawn from
Image = tuple[str, str]
Pair = tuple[Image, Image]


class BuiltPairs(NamedTuple):
    """Hold pairs of (person, file) images, fold after fold: first the genuine, then the impostor.

    ``is_same`` (N,) bool, N = folds · 2 · pairs_per_fold.
    """

    pairs: list[Pair]
    is_same: np.ndarray
    folds: int
    pairs_per_fold: int


def build_pairs(
    images: Mapping[str, Sequence[str]],
    *,
    folds: int = 10,
    pairs_per_fold: int | None = None,
    seed: int = 0,
) -> BuiltPairs:
    """Return ``pairs_per_fold`` genuine and as many impostor pairs in each of ``folds`` folds.

    None is 300, as in LFW, or what the fold that can make the fewest has.
    ``images``: person → file names. Everybody is put into one fold, so that the folds can make
    about as many genuine pairs each. Genuine pairs come round by round, one from every person who
    has any left, so that many photographs do not weigh more than needed; impostor pairs take people
    two by two from shuffled rounds, and a photograph of each at random. No pair is there twice.

    Raises ValueError naming what is short: people, photographs, or what a fold can make.
    """
    wanted = PAIRS_PER_FOLD if pairs_per_fold is None else pairs_per_fold
    if folds < 1 or wanted < 1:
        raise ValueError(f"folds={folds} and pairs_per_fold={pairs_per_fold} must be at least 1.")
    files = {person: sorted(names) for person, names in sorted(images.items())}
    for person, names in files.items():
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{person!r} has no photograph, or one twice: {names[:3]}.")
    _check_enough(files, folds, 1 if pairs_per_fold is None else wanted)
    rng = np.random.default_rng(seed)
    pairs: list[Pair] = []
    assigned = _assign_folds(files, folds, wanted, rng)
    if pairs_per_fold is None:
        fewest = min(min(_possible(members).values()) for members in assigned)
        wanted = max(1, min(wanted, fewest))
    for number, members in enumerate(assigned, start=1):
        possible = _possible_impostors(members, number, wanted)
        pairs += _genuine_pairs(members, wanted, rng)
        pairs += _impostor_pairs(members, possible, wanted, rng)
    is_same = np.tile(np.repeat([True, False], wanted), folds)
    return BuiltPairs(pairs, is_same, folds, wanted)


def folder_images(root: str | Path) -> dict[str, list[str]]:
    """Return person → files of ``root/PERSON/IMAGE``; raises as ``ImageFolder``."""
    found: dict[str, list[str]] = {}
    for path in ImageFolder(root).paths:
        person, file = path.split("/", 1)
        found.setdefault(person, []).append(file)
    return found


def listed_images(path: str | Path, root: str | Path) -> dict[str, list[str]]:
    """Return person → files of a list with a line ``PERSON/IMAGE`` for each image below ``root``.

    Raises ValueError naming the line that has another form, is there twice or names no file.
    """
    found: dict[str, list[str]] = {}
    for number, line in text_lines(path):
        person, slash, file = line.strip().partition("/")
        where = f"{path}, line {number}: {line.strip()!r}"
        if not slash or not file or "/" in file or ".." in (person, file):
            raise ValueError(f"{where} is not PERSON/IMAGE.")
        if file in found.get(person, []):
            raise ValueError(f"{where} is there twice.")
        if not (Path(root) / person / file).is_file():
            raise ValueError(f"{where} is not a file in {root}; give the image folder (--root).")
        found.setdefault(person, []).append(file)
    if not found:
        raise ValueError(f"{path} lists no images.")
    return found


def _check_enough(files: Mapping[str, Sequence[str]], folds: int, wanted: int) -> None:
    if len(files) < 2 * folds:
        raise ValueError(
            f"{len(files)} people cannot fill {folds} folds: impostor pairs need two in each, so "
            f"{2 * folds} in all. Add people, or lower the folds."
        )
    several = [person for person, names in files.items() if len(names) > 1]
    if len(several) < folds:
        raise ValueError(
            f"{len(several)} people have two photographs or more, but each of {folds} folds needs "
            "one for its genuine pairs. Add photographs, or lower the folds."
        )
    possible = sum(comb(len(names), 2) for names in files.values())
    if possible < folds * wanted:
        raise ValueError(
            f"The photographs make {possible} genuine pairs, but {folds} folds of {wanted} need "
            f"{folds * wanted}. Add photographs of the same people, or lower the pairs per fold."
        )


def _assign_folds(
    files: Mapping[str, Sequence[str]], folds: int, wanted: int, rng: np.random.Generator
) -> list[dict[str, Sequence[str]]]:
    """Return who is in each fold: the most able first, each to the fold that can least.

    Of folds that can make what is wanted, the one with the fewest people comes next. So it does for
    someone of one photograph, who is of no use for genuine pairs.
    """
    people = list(files)
    people = [people[i] for i in rng.permutation(len(people))]
    able = {person: min(wanted, comb(len(files[person]), 2)) for person in people}
    people.sort(key=lambda person: -able[person])
    members: list[dict[str, Sequence[str]]] = [{} for _ in range(folds)]
    can = [0] * folds
    for person in people:
        poorest = min(
            range(folds),
            key=lambda fold: (able[person] and min(can[fold], wanted), len(members[fold])),
        )
        members[poorest][person] = files[person]
        can[poorest] += able[person]
    return members


def _possible(members: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return how many genuine and impostor pairs a fold can make."""
    genuine = sum(comb(len(names), 2) for names in members.values())
    photographs = sum(len(names) for names in members.values())
    return {"genuine": genuine, "impostor": comb(photographs, 2) - genuine}


def _possible_impostors(members: Mapping[str, Sequence[str]], number: int, wanted: int) -> int:
    """Return how many impostor pairs fold ``number`` can make; ValueError for too few pairs."""
    every = _possible(members)
    for kind, possible in every.items():
        if possible < wanted:
            raise ValueError(
                f"Fold {number} has {sum(map(len, members.values()))} photographs of "
                f"{len(members)} people, who make {possible} {kind} pairs, but {wanted} are "
                "wanted. Add people or photographs, or lower the pairs per fold or the folds."
            )
    return every["impostor"]


def _genuine_pairs(
    members: Mapping[str, Sequence[str]], wanted: int, rng: np.random.Generator
) -> list[Pair]:
    left: dict[str, list[int]] = {}
    for person, names in members.items():
        if possible := comb(len(names), 2):
            left[person] = rng.choice(possible, min(possible, wanted), replace=False).tolist()
    pairs: list[Pair] = []
    while True:
        people = [person for person, numbers in left.items() if numbers]
        for i in rng.permutation(len(people)):
            person = people[i]
            # Counted, not listed: someone of a thousand photographs has half a million pairs.
            a, b = next(islice(combinations(members[person], 2), left[person].pop(), None))
            pairs.append(((person, a), (person, b)))
            if len(pairs) == wanted:
                return pairs


def _impostor_pairs(
    members: Mapping[str, Sequence[str]], possible: int, wanted: int, rng: np.random.Generator
) -> list[Pair]:
    if possible < _FEW * wanted:
        every = [
            ((a, x), (b, y))
            for a, b in combinations(members, 2)
            for x in members[a]
            for y in members[b]
        ]
        return [every[i] for i in rng.choice(len(every), wanted, replace=False)]
    people = list(members)
    pairs: list[Pair] = []
    taken: set[Pair] = set()
    while True:
        order = rng.permutation(len(people)).tolist()
        for i, j in zip(order[0::2], order[1::2], strict=False):
            a, b = sorted((people[i], people[j]))
            pair = ((a, _one_of(members[a], rng)), (b, _one_of(members[b], rng)))
            if pair not in taken:
                taken.add(pair)
                pairs.append(pair)
                if len(pairs) == wanted:
                    return pairs


def _one_of(names: Sequence[str], rng: np.random.Generator) -> str:
    return names[int(rng.integers(len(names)))]
