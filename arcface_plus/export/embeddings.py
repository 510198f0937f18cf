"""Export embeddings of a whole collection to one file: complete, in order, resumable.

Rows are computed in blocks, written to a work folder beside the output as they are done, and joined
at the end: an interrupted export goes on with ``resume``, and no rank ever holds all rows.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from arcface_plus.data.collections import Collection
from arcface_plus.data.lazy_images import describe_image
from arcface_plus.distributed import World, broadcast_object, gather_objects
from arcface_plus.evaluation.embedding.embed import (
    EmbeddingOptions,
    Progress,
    SelectedImages,
    embed_rows,
    raise_together,
)
from arcface_plus.evaluation.embedding.set_files import (
    Contents,
    check_suffix,
    origin_of,
    write_contents,
)
from arcface_plus.files import written_beside
from arcface_plus.models.embedding_model import EmbeddingModel

BLOCK = 4096


def export_embeddings(
    model: EmbeddingModel,
    collection: Collection,
    output: str | Path,
    world: World,
    options: EmbeddingOptions,
    *,
    skip_bad: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    advice: str = "--skip-bad goes on without unreadable images; --resume keeps what is done",
) -> list[str]:
    """Write key, label, norm and embedding (f(x) + f(flip x), not normalised) of every image.

    ``output``: .npz, .npy (to be mapped into memory) or .parquet; ``set_files`` says what is in
    each. Rows are in the collection's order and the same at any number of ranks. All ranks call it
    and must see the same file system. ``advice`` ends the message of an image that stops it.

    Returns what was left out: nothing, unless ``skip_bad`` lets unreadable images go (they are then
    listed in ``OUTPUT.skipped.txt`` too). Raises ValueError for an existing output without
    ``overwrite``, an unreadable image (or where none is readable), a work folder of another model
    or collection.
    """
    output = Path(output)
    check_output(output, overwrite=overwrite)
    if skip_bad and collection.pairs:
        raise ValueError("an image of a pair set cannot be left out: its pairs would be gone.")
    work = _WorkFolder(output, model, collection, options, world=world, resume=resume)
    forgiving = _Forgiving(collection)
    images: Any = forgiving if skip_bad else collection.images
    failure: Exception | None = None
    try:
        _embed_blocks(model, images, work, world, options, progress)
    except (ValueError, OSError) as error:  # the other ranks must hear of it before anyone leaves
        failure = ValueError(f"{error} ({advice})")
    raise_together(failure, world.control)
    skipped: dict[int, str] = {}
    for part in gather_objects(forgiving.skipped, world.control):
        skipped |= part
    if world.is_main:
        try:
            work.join(output, skipped)
        except (ValueError, OSError) as error:
            failure = error
    raise_together(failure, world.control)
    return [skipped[i] for i in sorted(skipped)]


def _embed_blocks(
    model: EmbeddingModel,
    images: Any,
    work: _WorkFolder,
    world: World,
    options: EmbeddingOptions,
    progress: Progress | None,
) -> None:
    """Embed this rank's blocks, every ``world.size``-th one, where they are not there already."""
    blocks = [range(lo, min(lo + BLOCK, len(images))) for lo in range(0, len(images), BLOCK)]
    mine = blocks[world.rank :: world.size]
    done, total = 0, sum(map(len, mine))

    def count(now: int, _: int) -> None:
        if progress is not None:
            progress(done + now, total)

    for block in mine:
        if not work.path(block.start).is_file():
            rows = embed_rows(
                model, images, block, replace(options, device=world.device), progress=count
            )
            work.put(block.start, rows)
        done += len(block)


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raise ValueError for a suffix that is not ours, or a file that would be overwritten."""
    check_suffix(output)
    if output.exists() and not overwrite:
        raise ValueError(f"{output} exists; give another --output, or --overwrite.")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"the folder {output.parent} of --output does not exist.")


class _WorkFolder:
    """``OUTPUT.partial/``: what it is of, and a file a finished block."""

    def __init__(
        self,
        output: Path,
        model: EmbeddingModel,
        collection: Collection,
        options: EmbeddingOptions,
        *,
        world: World,
        resume: bool,
    ) -> None:
        self.folder = output.with_name(output.name + ".partial")
        self.collection = collection
        self.origin = origin_of(model, flip=options.flip)
        keys = hashlib.sha256()
        for key in collection.keys:
            keys.update(f"{key}\n".encode())
        description = {
            **vars(self.origin),
            "keys": keys.hexdigest(),
            "alignment": collection.alignment,
            "precision": options.precision,
            "resize": options.resize,
            "batch_size": options.batch_size,
            "block": BLOCK,
        }
        problem = self._prepare(description, resume) if world.is_main else None
        problem = broadcast_object(problem, world.control)
        if problem:
            raise ValueError(problem)

    def _prepare(self, description: dict[str, object], resume: bool) -> str | None:
        about = self.folder / "about.json"
        if self.folder.exists() and resume:
            if not about.is_file() or json.loads(about.read_text()) != description:
                return (
                    f"{self.folder} was begun with another model, collection or option; remove "
                    "it or leave --resume out to start over."
                )
            return None
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir()
        about.write_text(json.dumps(description))
        return None

    def path(self, lo: int) -> Path:
        return self.folder / f"{lo:012d}.npy"

    def put(self, lo: int, rows: np.ndarray) -> None:
        try:
            with written_beside(self.path(lo)) as beside, beside.open("wb") as file:
                np.save(file, rows)
        except OSError as error:  # NumPy's names neither the file nor the cause
            raise OSError(
                f"{self.path(lo)} could not be written, its disk is likely full: {error}"
            ) from error

    def join(self, output: Path, skipped: dict[int, str]) -> None:
        """Write the output from all blocks, atomically, and remove the folder."""
        blocks = [self.path(lo) for lo in range(0, len(self.collection.keys), BLOCK)]
        # A skipped image may be known from an earlier, interrupted run: its row is NaN.
        keep = np.concatenate(
            [np.isfinite(np.load(block, mmap_mode="r")[:, 0]) for block in blocks]
        )
        for index in np.flatnonzero(~keep).tolist():
            skipped.setdefault(index, describe_image(self.collection.images, index))
        if not keep.any():
            raise ValueError(f"none of the {len(keep)} images is readable: {skipped[0]}")
        dim = np.load(blocks[0], mmap_mode="r").shape[1]
        keys, labels = np.array(self.collection.keys)[keep], self.collection.labels[keep]
        rows, pairs = _kept_rows(blocks, keep), self.collection.pairs
        write_contents(output, Contents(keys, labels, rows, dim, self.origin, pairs))
        listed = output.with_name(output.name + ".skipped.txt")
        listed.unlink(missing_ok=True)
        if skipped:
            listed.write_text("".join(f"{skipped[i]}\n" for i in sorted(skipped)), encoding="utf-8")
        shutil.rmtree(self.folder)


class _Forgiving(SelectedImages):
    """Images of which unreadable ones become None, listed in ``skipped`` by index."""

    def __init__(self, collection: Collection) -> None:
        super().__init__(collection.images, np.arange(len(collection.keys)))
        self.skipped: dict[int, str] = {}

    def __getitem__(self, index: int) -> np.ndarray | None:  # type: ignore[override]
        try:
            return super().__getitem__(index)
        except (ValueError, OSError) as error:
            self.skipped[index] = str(error)
            return None


def _kept_rows(blocks: list[Path], keep: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the embeddings (n, D) of each block that are kept."""
    for lo, block in zip(range(0, len(keep), BLOCK), blocks, strict=True):
        yield np.load(block)[keep[lo : lo + BLOCK]]
