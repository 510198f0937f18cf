"""Export embeddings of a whole collection to one file: complete, in order, resumable.

Rows are computed in blocks, written to a work folder beside the output as they are done, and joined
at the end: an interrupted export goes on with ``resume``, and no rank ever holds all rows.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from arcface_plus.data.collections import Collection
from arcface_plus.data.lazy_images import describe_image
from arcface_plus.distributed import World, barrier, broadcast_object, gather_objects
from arcface_plus.evaluation.embedding.embed import (
    EmbeddingOptions,
    Progress,
    SelectedImages,
    embed_rows,
    raise_together,
)
from arcface_plus.files import written_beside
from arcface_plus.models import model_hash
from arcface_plus.models.embedding_model import EmbeddingModel

BLOCK = 4096
SUFFIXES = (".npz", ".parquet")


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
) -> list[str]:
    """Write key, label, norm and embedding (f(x) + f(flip x), not normalised) of every image.

    ``.npz``: ``key`` (N,) text, ``label`` (N,) int64, ``norm`` (N,) and ``embedding`` (N, D)
    float32, ``model_hash`` () text, and index_a, index_b, is_same of a pair set. ``.parquet``: a
    row an image. Rows are in the collection's order. All ranks call it and must see the same file
    system.

    Returns what was left out: nothing, unless ``skip_bad`` lets unreadable images go (they are then
    listed in ``OUTPUT.skipped.txt`` too). Raises ValueError for an existing output without
    ``overwrite``, an unreadable image, a work folder of another model or collection.
    """
    output = Path(output)
    check_output(output, overwrite=overwrite)
    if skip_bad and collection.pairs:
        raise ValueError("an image of a pair set cannot be left out: its pairs would be gone.")
    work = _WorkFolder(output, model, collection, flip=options.flip, world=world, resume=resume)
    forgiving = _Forgiving(collection)
    images: Any = forgiving if skip_bad else collection.images
    failure: ValueError | None = None
    try:
        _embed_blocks(model, images, work, world, options, progress)
    except ValueError as error:  # the other ranks must hear of it before anyone leaves
        failure = ValueError(
            f"{error} (--skip-bad goes on without unreadable images; --resume keeps what is done)"
        )
    raise_together(failure, world.control)
    skipped: dict[int, str] = {}
    for part in gather_objects(forgiving.skipped, world.control):
        skipped |= part
    if world.is_main:
        work.join(output, model_hash(model), skipped)
    barrier(world.control)
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
    if output.suffix not in SUFFIXES:
        raise ValueError(f"{output}: embeddings are written as {' or '.join(SUFFIXES)}.")
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
        *,
        flip: bool,
        world: World,
        resume: bool,
    ) -> None:
        self.folder = output.with_name(output.name + ".partial")
        self.collection = collection
        description = {
            "model": model_hash(model),
            "preprocessing": model.preprocessing.to_json(),
            "keys": hashlib.sha256("\n".join(collection.keys).encode()).hexdigest(),
            "alignment": collection.alignment,
            "flip": flip,
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
                    f"{self.folder} was begun with another model, collection, alignment or flip; "
                    "remove it or leave --resume out to start over."
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
        with written_beside(self.path(lo)) as beside, beside.open("wb") as file:
            np.save(file, rows)

    def join(self, output: Path, model: str, skipped: dict[int, str]) -> None:
        """Write the output from all blocks, atomically, and remove the folder."""
        blocks = [self.path(lo) for lo in range(0, len(self.collection.keys), BLOCK)]
        # A skipped image may be known from an earlier, interrupted run: its row is NaN.
        keep = np.concatenate(
            [np.isfinite(np.load(block, mmap_mode="r")[:, 0]) for block in blocks]
        )
        for index in np.flatnonzero(~keep).tolist():
            skipped.setdefault(index, describe_image(self.collection.images, index))
        write = _write_npz if output.suffix == ".npz" else _write_parquet
        with written_beside(output) as beside:
            write(beside, self.collection, blocks, keep, model)
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


def _kept_rows(
    blocks: list[Path], keep: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield which images of a block are kept, their embeddings (n, D) and norms (n,) float32."""
    for lo, block in zip(range(0, len(keep), BLOCK), blocks, strict=True):
        kept = np.flatnonzero(keep[lo : lo + BLOCK])
        rows = np.load(block)[kept]
        norms = np.linalg.norm(rows.astype(np.float64), axis=1).astype(np.float32)
        yield kept + lo, rows, norms


def _write_npz(
    path: Path, collection: Collection, blocks: list[Path], keep: np.ndarray, model: str
) -> None:
    """Stream the blocks into one member of the archive; never hold all rows."""
    dim = np.load(blocks[0], mmap_mode="r").shape[1]
    norms = []
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        with archive.open("embedding.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (int(keep.sum()), dim)}
            np.lib.format.write_array_header_1_0(member, header)
            for _, rows, of_block in _kept_rows(blocks, keep):
                norms.append(of_block)
                member.write(rows.tobytes())
        members = {
            "key": np.array(collection.keys)[keep],
            "label": collection.labels[keep],
            "norm": np.concatenate(norms),
            "model_hash": np.array(model),
            **collection.pairs,
        }
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _write_parquet(
    path: Path, collection: Collection, blocks: list[Path], keep: np.ndarray, model: str
) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError('.parquet needs pyarrow: pip install "arcface-plus[parquet]"') from error
    dim = np.load(blocks[0], mmap_mode="r").shape[1]
    schema = pa.schema(
        [("key", pa.string()), ("label", pa.int64()), ("norm", pa.float32()),
         ("embedding", pa.list_(pa.float32(), dim))],
        metadata={"model_hash": model},
    )  # fmt: skip
    with pq.ParquetWriter(path, schema) as writer:
        for kept, rows, norms in _kept_rows(blocks, keep):
            columns = [
                pa.array([collection.keys[i] for i in kept.tolist()]),
                pa.array(collection.labels[kept]),
                pa.array(norms),
                pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dim),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
