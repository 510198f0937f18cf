"""Files of named embeddings: ``.npz``, ``.npy`` with ``.rows.npz``, or ``.parquet``.

Each holds a row an image: ``key`` text, ``label`` int64 (−1 where unknown), ``norm`` float32 (the
length of the embedding, a sign of quality) and ``embedding`` (D,) float32, and once what made them:
``model_hash``, ``preprocessing`` (JSON) and ``flip``. An ``.npz`` of a pair set also holds its
``index_a``, ``index_b`` and ``is_same``. ``X.npy`` is the (N, D) matrix alone, so that it can be
mapped into memory; ``X.rows.npz`` beside it is the rest. Equal content gives equal bytes.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from arcface_plus.evaluation.embedding.files import read_arrays
from arcface_plus.evaluation.embedding.npy_files import UNREADABLE, check_unpacked, mapped_npy
from arcface_plus.files import written_beside
from arcface_plus.models import model_hash
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.onnx_model import OnnxModel

SUFFIXES = (".npz", ".npy", ".parquet")
ORIGIN = ("model_hash", "preprocessing", "flip")
PAIRS = ("index_a", "index_b", "is_same")
_LAYOUTS = (("key", "embedding"), ("files", "emb"))
_OPTIONAL = ("label", *ORIGIN, *PAIRS)
_EXPECTED = "key and embedding, as arcface-plus embed writes it, or of files and emb"


@dataclass(frozen=True)
class Origin:
    """What made embeddings: hash of the weights, preprocessing as JSON, flips summed or not."""

    model_hash: str
    preprocessing: str
    flip: bool


def origin_of(model: EmbeddingModel, *, flip: bool) -> Origin:
    """Return what says that embeddings are of ``model``.

    An ONNX file that gives its source's embeddings, but for rounding, is that source.
    """
    if isinstance(model, OnnxModel) and model.source is not None:
        return Origin(*model.source, flip)
    return Origin(model_hash(model), model.preprocessing.to_json(), flip)


@dataclass(frozen=True)
class Contents:
    """Hold rows to be written: ``keys`` (N,) text, ``labels`` (N,) and their ``origin``.

    ``blocks`` yields the (n, D) float32 embeddings in order, so that no one holds all N of them.
    ``pairs``: index_a, index_b and is_same of a pair set, or nothing.
    """

    keys: np.ndarray
    labels: np.ndarray
    blocks: Iterable[np.ndarray]
    dim: int
    origin: Origin | None
    pairs: Mapping[str, np.ndarray]


def check_suffix(path: Path) -> None:
    """Raise ValueError for a suffix that is not ours, and for .parquet without pyarrow."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: files of embeddings end in {', '.join(SUFFIXES)}.")
    if path.suffix == ".parquet":
        _parquet(path)


def rows_file(path: Path) -> Path:
    """Return the file of keys, labels and norms that belongs to the matrix ``X.npy``."""
    return path.with_suffix(".rows.npz")


def write_contents(path: Path, contents: Contents) -> None:
    """Write a file of embeddings beside ``path`` and rename it; memory: one block, keys, norms."""
    writers: dict[str, Callable[[Path, Contents], None]] = {
        ".npz": _write_npz,
        ".parquet": _write_parquet,
    }
    if path.suffix in writers:
        with written_beside(path) as beside:
            writers[path.suffix](beside, contents)
        return
    with written_beside(path) as beside, written_beside(rows_file(path)) as rows_beside:
        with beside.open("wb") as file:
            norms = _write_matrix(file, contents)
        with zipfile.ZipFile(rows_beside, "w", allowZip64=True) as archive:
            _write_members(archive, contents, norms)
        path.unlink(missing_ok=True)  # at no moment do new rows lie beside an old matrix


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """Return ``key``, ``embedding`` and what else the file has; the matrix of an .npy is mapped.

    Raises FileNotFoundError, and ValueError naming the file for anything that is no such file.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    layouts: tuple[tuple[str, ...], ...] = _LAYOUTS
    held: list[np.ndarray | None] = []
    if path.suffix == ".npy":
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        layouts = (("key",),)
        try:
            matrix = mapped_npy(path)
        except UNREADABLE as error:
            raise ValueError(f"{path}: not readable as a matrix of embeddings: {error}.") from error
        held = [matrix]
        path = rows_file(path)
    arrays = read_arrays(path, *layouts, expected=_EXPECTED, optional=_OPTIONAL)
    names = ("key", "embedding", *_OPTIONAL)
    columns = zip(names, [*arrays[:1], *held, *arrays[1:]], strict=True)
    return {name: array for name, array in columns if array is not None}


def _write_matrix(file: IO[bytes], contents: Contents) -> np.ndarray:
    """Stream the blocks into an .npy; return the norms (N,) float32."""
    shape = (len(contents.keys), contents.dim)
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    norms = [np.empty(0, np.float32)]
    for rows in contents.blocks:
        norms.append(_norms(rows))
        file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
    return np.concatenate(norms)


def _write_npz(path: Path, contents: Contents) -> None:
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        with archive.open(_member("embedding"), "w", force_zip64=True) as member:
            norms = _write_matrix(member, contents)
        _write_members(archive, contents, norms)


def _write_members(archive: zipfile.ZipFile, contents: Contents, norms: np.ndarray) -> None:
    origin = {} if contents.origin is None else vars(contents.origin)
    members = {"key": contents.keys, "label": contents.labels, "norm": norms, **origin}
    for name, array in {**members, **contents.pairs}.items():
        with archive.open(_member(name), "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy")  # with the same date always, not today's


def _write_parquet(path: Path, contents: Contents) -> None:
    pa, parquet = _parquet(path)
    embedding = pa.list_(pa.float32(), contents.dim)
    origin = {} if contents.origin is None else vars(contents.origin)
    schema = pa.schema(
        [("key", pa.string()), ("label", pa.int64()), ("norm", pa.float32()),
         ("embedding", embedding)],
        metadata={name: str(value) for name, value in origin.items()},
    )  # fmt: skip
    start = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for rows in contents.blocks:
            part = slice(start, start + len(rows))
            columns = [
                pa.array(contents.keys[part].tolist(), pa.string()),
                pa.array(contents.labels[part], pa.int64()),
                pa.array(_norms(rows)),
                pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), contents.dim),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            start += len(rows)


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    pa, parquet = _parquet(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        # Keys as a dictionary: a long one that is repeated is not yet there many times.
        with parquet.ParquetFile(path, read_dictionary=["key"]) as file:
            columns = _read_parquet_columns(pa, file, path)
            metadata = file.schema_arrow.metadata or {}
    except (pa.ArrowException, *UNREADABLE) as error:
        raise ValueError(f"{path}: not readable as embeddings: {error}.") from error
    stated = {
        name: metadata[name.encode()].decode() for name in ORIGIN if name.encode() in metadata
    }
    return columns | {name: np.array(text) for name, text in stated.items()}


def _read_parquet_columns(pa: Any, file: Any, path: Path) -> dict[str, np.ndarray]:
    schema = file.schema_arrow
    if absent := {"key", "embedding"} - set(schema.names):
        raise ValueError(f"it lacks the column {', '.join(sorted(absent))}")
    kind = schema.field("embedding").type
    if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
        raise ValueError(f"its column embedding is {kind}, not lists of one length of numbers")
    if not pa.types.is_dictionary(schema.field("key").type):
        raise ValueError(f"its column key is {schema.field('key').type}, not text")
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    # Runs of equal numbers take no room in the file, so the pages tell less than the rows do. Of
    # the columns nothing is asked here: pyarrow ends the process where those are damaged.
    rows = max(file.metadata.num_rows, sum(group.num_rows for group in groups))
    packed = sum(group.total_byte_size for group in groups)
    row_bytes = 8 + kind.list_size * kind.value_type.bit_width // 8
    check_unpacked(path, max(packed, rows * row_bytes))
    table = file.read([name for name in ("key", "label", "embedding") if name in schema.names])
    found = {"key": _texts(table["key"], path)}
    if "label" in schema.names:
        found["label"] = np.array(table["label"].to_pylist())
    if table["embedding"].null_count:
        raise ValueError("its column embedding has gaps")
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    return found | {"embedding": flat.reshape(-1, kind.list_size)}


def _texts(column: Any, path: Path) -> np.ndarray:
    """Return a dictionary column as (N,) text of one width: that of the longest."""
    longest = max(
        (len(t or "") for c in column.chunks for t in c.dictionary.to_pylist()), default=0
    )
    check_unpacked(path, 4 * longest * len(column))
    return np.array(column.to_pylist())


def _norms(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows.astype(np.float64), axis=1).astype(np.float32)


def _parquet(path: Path) -> Any:
    """Return the modules pyarrow and pyarrow.parquet."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ValueError(
            f'{path}: .parquet needs pyarrow: pip install "arcface_plus[parquet]"; or use .npz.'
        ) from error
