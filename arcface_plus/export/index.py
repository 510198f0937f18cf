"""Change a file of embeddings in place: the rows of a person leave it."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np

from arcface_plus.evaluation.embedding.set_files import Contents, write_contents
from arcface_plus.evaluation.embedding.sets import read_embedding_set

_ROWS_AT_ONCE = 65_536


def remove_person(path: Path, person: str) -> tuple[int, int]:
    """Remove the rows of ``person`` (``EmbeddingSet.names``); return how many went, how many stay.

    The new file is written beside the old one, in the form that ``embed`` writes, and renamed.
    Labels stay as they were. Raises ValueError where nobody is called so (naming those called
    alike), nobody else would be left, or the file holds pairs.
    """
    held = read_embedding_set(path)
    if held.has_pairs:
        raise ValueError(
            f"{path} holds the pairs of a pair set, which would point at other rows; embed a "
            "folder instead."
        )
    names = held.names()
    keep = names != person
    if keep.all():
        near = difflib.get_close_matches(
            person, sorted(set(names.tolist()) - {""}), n=3, cutoff=0.5
        )
        hint = f"did you mean {', '.join(near)}?" if near else f"it holds {len(set(names))} people."
        raise ValueError(f"{path} has no row of {person!r}: {hint}")
    if not keep.any():
        raise ValueError(f"{path} holds rows of {person} alone: remove the file instead.")
    labels = np.full(len(keep), -1, np.int64) if held.labels is None else held.labels
    blocks = (
        held.embeddings[start : start + _ROWS_AT_ONCE][keep[start : start + _ROWS_AT_ONCE]]
        for start in range(0, len(keep), _ROWS_AT_ONCE)
    )
    dim = held.embeddings.shape[1]
    write_contents(path, Contents(held.keys[keep], labels[keep], blocks, dim, held.origin, {}))
    return int((~keep).sum()), int(keep.sum())
