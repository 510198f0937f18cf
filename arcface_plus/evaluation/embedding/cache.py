"""Embeddings of pair sets kept on disk, so that the same model need not embed them twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from arcface_plus.data.lazy_images import ImageFiles, identify_image
from arcface_plus.data.pairs.sets import PairSet
from arcface_plus.distributed import Group, broadcast_object, rank
from arcface_plus.evaluation.embedding.embed import raise_together
from arcface_plus.evaluation.embedding.npy_files import UNREADABLE, opened_npz
from arcface_plus.files import written_beside

Fact = str | bool


def cached_embeddings(
    folder: Path,
    facts: Mapping[str, Fact],
    shape: tuple[int, int],
    make: Callable[[], np.ndarray],
    *,
    group: Group = None,
) -> np.ndarray:
    """Return the embeddings that ``folder`` holds for ``facts``, else make and keep them.

    ``facts``: all that the embeddings depend on; their hash is the file's name. ``shape``: that the
    embeddings must have. ``make`` runs on all ranks of ``group`` together; rank 0 reads and writes.

    Raises ValueError naming the file, on every rank, where it is damaged or is of other facts.
    """
    described = json.dumps(dict(facts), sort_keys=True)
    path = folder / f"{hashlib.sha256(described.encode()).hexdigest()[:32]}.npz"
    kept, failure = None, None
    if rank(group) == 0 and path.is_file():
        try:
            kept = _read(path, described, shape)
        except ValueError as error:
            failure = error
    raise_together(failure, group)
    kept = broadcast_object(kept, group)
    if kept is not None:
        return kept
    made = make()
    if rank(group) == 0:
        _write(path, described, made)
    return made


def image_digest(pairs: PairSet) -> str:
    """Return a sha256 over the content of the images that pairs use, in their order.

    A pair set's fingerprint knows image files by name and size alone.
    """
    digest = hashlib.sha256()
    images = pairs.images
    for row in pairs.used_images().tolist():
        if isinstance(images, ImageFiles):
            digest.update(hashlib.sha256((images.root / images.paths[row]).read_bytes()).digest())
        else:
            digest.update(identify_image(images, row))
    return digest.hexdigest()


def _read(path: Path, described: str, shape: tuple[int, int]) -> np.ndarray:
    try:
        with opened_npz(path) as archive:
            embeddings, facts = archive.read("embeddings"), str(archive.read("facts"))
            digest = str(archive.read("sha256"))
        if facts != described:
            raise ValueError("it is of another model, pair set or setting")
        if embeddings.dtype != np.float32 or embeddings.shape != shape:
            raise ValueError(
                f"it holds {embeddings.dtype} of shape {embeddings.shape}, not {shape}"
            )
        if _digest(embeddings) != digest or not np.isfinite(embeddings).all():
            raise ValueError("its content is not what was written")
    except UNREADABLE as error:
        raise ValueError(
            f"{path}: these kept embeddings cannot be used: {error}. Delete the file; they will be "
            "made again."
        ) from error
    return np.asarray(embeddings)


def _write(path: Path, described: str, embeddings: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as beside, beside.open("wb") as file:
        np.savez(file, embeddings=embeddings, facts=described, sha256=_digest(embeddings))


def _digest(embeddings: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(embeddings).tobytes()).hexdigest()
