"""Pairs of embeddings that are already in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from arcface_plus.data.pairs.lists import PairList, read_pair_list
from arcface_plus.data.pairs.people import NAMELESS, PairNames, pair_names
from arcface_plus.evaluation.embedding.npy_files import UNREADABLE, opened_npz

_SHOWN = 5
_EXPECTED = (
    "files and emb (with a list of pairs), or of embeddings_a, embeddings_b and is_same (without)"
)


@dataclass(frozen=True)
class EmbeddedPairs:
    """Hold both sides of N pairs (N, D), their labels (N,) bool and the folds the source states.

    ``people``: the N names of either side, where a list has them. ``photographs``: the (N,) rows of
    either side's images, where that is known. ``names``: what a list calls images and people.
    """

    embeddings_a: np.ndarray
    embeddings_b: np.ndarray
    is_same: np.ndarray
    folds: int | None
    name: str
    people: tuple[list[str], list[str]] | None = None
    photographs: tuple[np.ndarray, np.ndarray] | None = None
    names: PairNames = NAMELESS


def read_embedded_pairs(path: str | Path, pairs: str | Path | None = None) -> EmbeddedPairs:
    """Read pairs of embeddings from an ``.npz``.

    Without ``pairs`` the file holds ``embeddings_a``, ``embeddings_b`` and ``is_same``, or what
    ``arcface-plus embed`` exports of a pair set (``embedding``, ``index_a``, ``index_b``,
    ``is_same``). With a list of pairs it holds ``files`` (n names) and ``emb`` (n, D), or an
    export's ``key`` and ``embedding``. A person and a number of the list are
    the file whose name without folders and suffix is ``NAME_0001``; a path of the list is the file
    of exactly that name.

    Raises ValueError naming the file for a missing array, an image of the list that is missing or
    there twice, and an embedding it needs that is not finite; FileNotFoundError for a missing file.
    """
    path = Path(path)
    if pairs is None:
        return _pairs_of_file(path)
    if Path(pairs).suffix.lower() == ".bin":
        raise ValueError(
            f"{pairs}: a .bin holds images without names, so no embeddings can be matched to it; "
            "give a list of pairs (.txt), or score the .bin with a model."
        )
    files, embeddings = read_arrays(
        path, ("files", "emb"), ("key", "embedding"), expected=_EXPECTED
    )
    if files.ndim != 1 or files.dtype.kind not in "US" or embeddings.ndim != 2:
        raise ValueError(
            f"{path}: files must be a list of names and emb (n, D), but they are {files.dtype} of "
            f"shape {files.shape} and {embeddings.dtype} of shape {embeddings.shape}."
        )
    if len(files) != len(embeddings):
        raise ValueError(f"{path}: {len(files)} files for {len(embeddings)} embeddings.")
    listed = read_pair_list(pairs)
    rows = _match(listed, [str(name) for name in files.astype(str)], path)
    bad = np.flatnonzero(~np.isfinite(embeddings[rows]).all(axis=1))
    if bad.size:
        names = ", ".join(listed.images[i].stem for i in bad[:_SHOWN])
        raise ValueError(
            f"{path}: {bad.size} of the embeddings that {pairs} needs are not finite: {names}; "
            "embed these images again."
        )
    a, b = embeddings[rows[listed.index_a]], embeddings[rows[listed.index_b]]
    return EmbeddedPairs(
        *(a, b, listed.is_same, listed.folds, path.stem),
        people=listed.people(),
        photographs=(listed.index_a, listed.index_b),
        names=pair_names(listed),
    )


def _pairs_of_file(path: Path) -> EmbeddedPairs:
    sides = ("embeddings_a", "embeddings_b", "is_same")
    exported = ("embedding", "index_a", "index_b", "is_same")
    arrays = read_arrays(path, sides, exported, expected=_EXPECTED)
    if len(arrays) == len(sides):
        a, b, same = arrays
        return EmbeddedPairs(a, b, same, None, path.stem)
    embeddings, index_a, index_b, same = arrays
    for index in (index_a, index_b):
        if index.ndim != 1 or index.dtype.kind not in "iu" or embeddings.ndim != 2:
            raise ValueError(f"{path}: index_a and index_b must be whole numbers, one a pair.")
        if len(index) and not 0 <= index.min() <= index.max() < len(embeddings):
            raise ValueError(f"{path}: its pairs refer to rows outside its {len(embeddings)} rows.")
    return EmbeddedPairs(
        embeddings[index_a],
        embeddings[index_b],
        same,
        None,
        path.stem,
        photographs=(index_a, index_b),
    )


def _match(listed: PairList, files: list[str], path: Path) -> np.ndarray:
    """Return the row of ``files`` of each listed image."""
    by_stem = any(image.number is not None for image in listed.images)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(files):
        rows.setdefault(PurePosixPath(name).stem if by_stem else name, []).append(row)
    found = [rows.get(image.stem, []) for image in listed.images]
    missing = [i for i, at in enumerate(found) if not at]
    twice = [i for i, at in enumerate(found) if len(at) > 1]
    for wrong, what in ((missing, "lacks"), (twice, "has more than one embedding of")):
        if wrong:
            names = ", ".join(listed.images[i].stem for i in wrong[:_SHOWN])
            more = ", …" if len(wrong) > _SHOWN else ""
            raise ValueError(
                f"{path} {what} {len(wrong)} of the {len(found)} images of {listed.source}: "
                f"{names}{more}. Each must be in files once."
            )
    return np.array([at[0] for at in found], dtype=np.int64)


def read_arrays(
    path: Path, *layouts: tuple[str, ...], expected: str, optional: Sequence[str] = ()
) -> list[Any]:
    """Return the arrays of the first of ``layouts`` whose names the file all has.

    The arrays ``optional`` come last, None for one that the file lacks. ``expected``: what the file
    should hold, for messages. Raises FileNotFoundError, and ValueError naming the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with opened_npz(path) as archive:
            for names in layouts:
                if set(names) <= set(archive.names):
                    more = [archive.read(o) if o in archive.names else None for o in optional]
                    return [archive.read(name) for name in names] + more
            absent = [name for name in layouts[0] if name not in archive.names]
            held = ", ".join(archive.names) or "nothing"
            raise ValueError(f"it lacks {', '.join(absent)} and holds {held[:200]}")
    except UNREADABLE as error:
        raise ValueError(
            f"{path}: not readable as embeddings: {error}. It should be an .npz of {expected}."
        ) from error
