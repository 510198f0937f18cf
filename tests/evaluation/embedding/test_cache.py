from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.lazy_images import ImageFiles
from arcface_plus.data.pairs.sets import PairSet
from arcface_plus.evaluation.embedding.cache import cached_embeddings, image_digest

FACTS = {"model": "abc", "flip": True}


class Maker:
    """Makes other embeddings every time, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return np.full((3, 2), self.calls, dtype=np.float32)


def test_made_once_for_the_same_facts(tmp_path: Path) -> None:
    make = Maker()
    folder = tmp_path / "kept" / "here"
    first = cached_embeddings(folder, FACTS, (3, 2), make)
    again = cached_embeddings(folder, dict(reversed(FACTS.items())), (3, 2), make)
    assert make.calls == 1 and (first == again).all() and again.dtype == np.float32
    for other in ({"model": "abd"}, {"flip": False}, {"flip": "True"}):
        cached_embeddings(folder, FACTS | other, (3, 2), make)
    assert make.calls == 4
    assert len(list(folder.iterdir())) == 4, "and no file besides"


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_damage_is_noticed_and_named(tmp_path: Path) -> None:
    make = Maker()
    cached_embeddings(tmp_path, FACTS, (3, 2), make)
    file = only_file(tmp_path)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole.replace(b"\x80\x3f", b"\x00\x40", 1)):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{file.name}.*Delete the file"):
            cached_embeddings(tmp_path, FACTS, (3, 2), make)
    assert make.calls == 1


def test_another_files_content_does_not_pass(tmp_path: Path) -> None:
    """Renamed files, other shapes, and values that changed with an archive intact."""
    make = Maker()
    cached_embeddings(tmp_path, FACTS, (3, 2), make)
    file = only_file(tmp_path)
    with pytest.raises(ValueError, match=r"shape \(3, 2\), not \(4, 2\)"):
        cached_embeddings(tmp_path, FACTS, (4, 2), make)
    with np.load(file) as held:
        content = dict(held)
    np.savez(file, **(content | {"facts": np.array("{}")}))
    with pytest.raises(ValueError, match="another model, pair set or setting"):
        cached_embeddings(tmp_path, FACTS, (3, 2), make)
    np.savez(file, **(content | {"embeddings": content["embeddings"] + 1}))
    with pytest.raises(ValueError, match="not what was written"):
        cached_embeddings(tmp_path, FACTS, (3, 2), make)
    np.savez(file, embeddings=content["embeddings"])
    with pytest.raises(ValueError, match="cannot be used"):
        cached_embeddings(tmp_path, FACTS, (3, 2), make)
    np.savez(file, **(content | {"embeddings": np.array([object()])}))
    with pytest.raises(ValueError, match="cannot be used"):
        cached_embeddings(tmp_path, FACTS, (3, 2), make)


def test_a_failure_to_embed_keeps_nothing(tmp_path: Path) -> None:
    def fail() -> np.ndarray:
        raise ValueError("corrupt image")

    with pytest.raises(ValueError, match="corrupt image"):
        cached_embeddings(tmp_path, FACTS, (3, 2), fail)
    assert not list(tmp_path.iterdir())


def test_images_count_by_content(tmp_path: Path) -> None:
    """A pair set's fingerprint takes a file of the same name and size for the same image."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    data = encode_jpeg(pixels)
    paths = ["a.jpg", "b.jpg"]
    for path in paths:
        (tmp_path / path).write_bytes(data)
    pairs = PairSet(ImageFiles(paths, root=tmp_path), [True])
    before = image_digest(pairs), pairs.fingerprint()
    changed = bytearray(data)
    changed[-10] ^= 1
    (tmp_path / "b.jpg").write_bytes(bytes(changed))
    after = image_digest(pairs), pairs.fingerprint()
    assert before[0] != after[0] and before[1] == after[1]
