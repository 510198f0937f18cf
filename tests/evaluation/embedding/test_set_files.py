from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.evaluation.embedding import set_files
from arcface_plus.evaluation.embedding.set_files import Contents, Origin, rows_file, write_contents
from arcface_plus.evaluation.embedding.sets import read_embedding_set

ROWS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
KEYS = np.array(["ä/1.jpg", "ä/2.jpg", "b/1.jpg", "b/x/2.jpg", "c/1.jpg", "top.jpg", "9.jpg"])
LABELS = np.array([0, 0, 1, 2, 3, -1, 12])
ORIGIN = Origin("f00d", '{"size": 112}', True)


@pytest.fixture(params=set_files.SUFFIXES)
def path(request, tmp_path):
    if request.param == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra parquet")
    return tmp_path / f"e{request.param}"


def write(path, origin=ORIGIN, pairs=None):
    blocks = iter([ROWS[:3], ROWS[3:3], ROWS[3:]])
    write_contents(path, Contents(KEYS, LABELS, blocks, 5, origin, pairs or {}))
    return path


def test_what_is_written_is_read(path):
    held = read_embedding_set(write(path))
    assert held.keys.tolist() == KEYS.tolist() and held.labels.tolist() == LABELS.tolist()
    assert np.array_equal(held.embeddings, ROWS) and held.embeddings.dtype == np.float32
    assert held.origin == ORIGIN and not held.has_pairs
    assert held.names().tolist() == ["ä", "ä", "b", "b/x", "c", "", "12"]
    no_flip = Origin("f00d", "{}", False)
    assert read_embedding_set(write(path, no_flip)).origin == no_flip
    assert read_embedding_set(write(path, None)).origin is None
    files = {path.name, rows_file(path).name} if path.suffix == ".npy" else {path.name}
    assert {each.name for each in path.parent.iterdir()} == files


def test_equal_content_gives_equal_bytes(path, monkeypatch):
    first = write(path).read_bytes()
    rows = rows_file(path).read_bytes() if path.suffix == ".npy" else b""
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert write(path).read_bytes() == first
    assert path.suffix != ".npy" or rows_file(path).read_bytes() == rows


def test_norms_and_pairs_are_there_too(path):
    pairs = {"index_a": np.array([0]), "index_b": np.array([2]), "is_same": np.array([False])}
    write(path, pairs=pairs)
    norms = np.sqrt((ROWS.astype(np.float64) ** 2).sum(axis=1))
    if path.suffix == ".parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(path)
        assert table.column_names == ["key", "label", "norm", "embedding"]
        np.testing.assert_allclose(table["norm"].to_numpy(), norms, rtol=1e-6)
        return
    assert read_embedding_set(path).has_pairs
    with np.load(rows_file(path) if path.suffix == ".npy" else path) as held:
        np.testing.assert_allclose(held["norm"], norms, rtol=1e-6)
        assert held["index_b"].tolist() == [2]


def test_a_matrix_is_mapped_not_read(tmp_path):
    held = read_embedding_set(write(tmp_path / "e.npy"))
    assert isinstance(held.embeddings, np.memmap) and not held.embeddings.flags.writeable


def test_a_writing_that_breaks_leaves_the_old_file(path):
    before = write(path).read_bytes()

    def blocks():
        yield ROWS[:3]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_contents(path, Contents(KEYS, LABELS, blocks(), 5, ORIGIN, {}))
    assert path.read_bytes() == before
    assert np.array_equal(read_embedding_set(path).embeddings, ROWS)


def test_files_that_are_none(path, tmp_path):
    whole = write(path).read_bytes()
    for damaged in (b"", b"nothing", whole[: len(whole) // 3]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"e\.\w+: not readable as"):
            read_embedding_set(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        read_embedding_set(path)


def test_a_matrix_without_its_rows_or_with_others(tmp_path):
    path = write(tmp_path / "e.npy")
    np.save(path, ROWS[:4])
    with pytest.raises(ValueError, match="N embeddings"):
        read_embedding_set(path)
    rows_file(path).unlink()
    with pytest.raises(FileNotFoundError, match=r"e\.rows\.npz"):
        read_embedding_set(path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not readable as a matrix"):
        read_embedding_set(path)


def test_parquet_of_other_columns(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "e.parquet"
    for columns, match in (
        ({"key": ["a"]}, "lacks the column embedding"),
        ({"key": ["a"], "embedding": [[1.0, 2.0]]}, "not lists of one length"),
    ):
        parquet.write_table(pa.table(columns), path)
        with pytest.raises(ValueError, match=match):
            read_embedding_set(path)
    vectors = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))
    parquet.write_table(pa.table({"key": ["a", "b"], "embedding": vectors}), path)
    with pytest.raises(ValueError, match=r"e\.parquet"):
        read_embedding_set(path)
    keys = pa.array(["a", None])
    vectors = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    parquet.write_table(pa.table({"key": keys, "embedding": vectors}), path)
    with pytest.raises(ValueError, match=r"e\.parquet"):
        read_embedding_set(path)


def test_parquet_of_runs_and_of_one_long_text(tmp_path):
    """Equal numbers and equal texts take no room in the file."""
    pa = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "e.parquet"
    zeros = np.zeros(200_000 * 128, np.float32)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(zeros), 128)
    names = pa.array(["a"] * len(rows))
    parquet.write_table(pa.table({"key": names, "embedding": rows}), path, compression="zstd")
    assert path.stat().st_size < 2**15
    with pytest.raises(ValueError, match=r"e\.parquet.* unpacks to 104000000 bytes"):
        read_embedding_set(path)
    few = pa.FixedSizeListArray.from_arrays(pa.array(zeros[: 4 * 20_000]), 4)
    names = pa.DictionaryArray.from_arrays(pa.array([0] * len(few)), pa.array(["x" * 10**6]))
    parquet.write_table(pa.table({"key": names, "embedding": few}), path, compression="zstd")
    with pytest.raises(ValueError, match=r"e\.parquet.* unpacks to 80000000000 bytes"):
        read_embedding_set(path)


def test_parquet_without_pyarrow_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r'pip install "arcface_plus\[parquet\]"'):
        set_files.check_suffix(tmp_path / "e.parquet")
