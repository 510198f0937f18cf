from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.evaluation.embedding.files import read_embedded_pairs

FILES = ["x/Ann_0001.jpg", "Ann_0002.png", "y/Bo_0001.jpg", "y/Cy_0001.jpg"]
LIST = "1\t1\nAnn\t1\t2\nBo\t1\tAnn\t1\n"


@pytest.fixture
def embeddings() -> np.ndarray:
    return np.arange(8, dtype=np.float32).reshape(4, 2)


@pytest.fixture
def pairs(tmp_path):
    (tmp_path / "pairs.txt").write_text(LIST)
    return tmp_path / "pairs.txt"


@pytest.mark.parametrize("kind", ["U", "S"])
def test_people_are_matched_by_file_name(tmp_path, pairs, embeddings, kind):
    np.savez(tmp_path / "e.npz", files=np.array(FILES, dtype=kind), emb=embeddings)
    read = read_embedded_pairs(tmp_path / "e.npz", pairs)
    assert np.array_equal(read.embeddings_a, embeddings[[0, 2]])
    assert np.array_equal(read.embeddings_b, embeddings[[1, 0]])
    assert (read.is_same.tolist(), read.folds, read.name) == ([True, False], 1, "e")


def test_paths_are_matched_as_written(tmp_path, embeddings):
    (tmp_path / "pairs.txt").write_text("x/a.jpg y/a.jpg 0\nx/a.jpg b.jpg 1\n")
    files = ["x/a.jpg", "y/a.jpg", "b.jpg", "c.jpg"]
    np.savez(tmp_path / "e.npz", files=files, emb=embeddings)
    read = read_embedded_pairs(tmp_path / "e.npz", tmp_path / "pairs.txt")
    assert np.array_equal(read.embeddings_b, embeddings[[1, 2]]) and read.folds is None


def test_both_sides_in_the_file(tmp_path, embeddings):
    sides = {"embeddings_a": embeddings, "embeddings_b": embeddings + 1}
    np.savez(tmp_path / "e.npz", **sides, is_same=[True, False, True, False])
    read = read_embedded_pairs(tmp_path / "e.npz")
    assert np.array_equal(read.embeddings_b, embeddings + 1) and read.is_same.tolist()[:1] == [True]


def test_wrong_names(tmp_path, pairs, embeddings):
    path = tmp_path / "e.npz"
    np.savez(path, files=[*FILES[:2], FILES[3], "z/Ann_0001.jpg"], emb=embeddings)
    with pytest.raises(ValueError, match=r"e\.npz lacks 1 of the 3 images of .*: Bo_0001\."):
        read_embedded_pairs(path, pairs)
    np.savez(path, files=[*FILES[:3], "z/Ann_0001.jpg"], emb=embeddings)
    with pytest.raises(ValueError, match=r"more than one embedding of 1 of the 3 .*: Ann_0001\."):
        read_embedded_pairs(path, pairs)
    embeddings[2, 1] = np.nan
    np.savez(path, files=FILES, emb=embeddings)
    with pytest.raises(ValueError, match=r"1 of the embeddings .* not finite: Bo_0001; embed"):
        read_embedded_pairs(path, pairs)
    embeddings[2:] = 1, np.inf
    embeddings[2] = 1
    np.savez(path, files=FILES, emb=embeddings)
    read_embedded_pairs(path, pairs)  # Cy is not in the list


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def test_wrong_files(tmp_path, pairs, embeddings):
    path = tmp_path / "e.npz"
    with pytest.raises(FileNotFoundError, match=r"e\.npz"):
        read_embedded_pairs(path)
    path.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match="not readable as embeddings"):
        read_embedded_pairs(path)
    with path.open("wb") as file:
        np.save(file, embeddings)
    with pytest.raises(ValueError, match=r"no \.npz archive"):
        read_embedded_pairs(path)
    np.savez_compressed(path, files=FILES, emb=embeddings)
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not readable as embeddings"):
        read_embedded_pairs(path, pairs)
    np.savez(path, files=np.array([Trap()], dtype=object), emb=embeddings)
    with pytest.raises(ValueError, match="object array is a pickle"):
        read_embedded_pairs(path, pairs)
    np.savez(path, emb=embeddings)
    with pytest.raises(ValueError, match="lacks files and holds emb"):
        read_embedded_pairs(path, pairs)
    np.savez(path, files=FILES[:3], emb=embeddings)
    with pytest.raises(ValueError, match="3 files for 4 embeddings"):
        read_embedded_pairs(path, pairs)
    np.savez(path, files=[1, 2, 3, 4], emb=embeddings)
    with pytest.raises(ValueError, match="files must be a list of names"):
        read_embedded_pairs(path, pairs)
    with pytest.raises(ValueError, match="images without names"):
        read_embedded_pairs(path, tmp_path / "lfw.bin")
