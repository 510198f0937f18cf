from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from arcface_plus.data.collections import open_collection
from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.pairs.sets import save_pairs_bin
from arcface_plus.data.records.reader import RecordWriter
from arcface_plus.distributed import start_world
from arcface_plus.evaluation.embedding.embed import EmbeddingOptions, embed
from arcface_plus.export import embeddings as export
from arcface_plus.models import Preprocessing, build_model, model_hash, save_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = build_model(
        "iresnet18", embedding_dim=8, width=8, size=32, preprocessing=Preprocessing(size=32)
    )
    return net.eval()


@pytest.fixture(scope="module")
def faces() -> list[bytes]:
    rng = np.random.default_rng(0)
    return [encode_jpeg(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(11)]


@pytest.fixture
def folder(tmp_path: Path, faces: list[bytes]) -> Path:
    root = tmp_path / "faces"
    for i, data in enumerate(faces):
        path = root / ("top.jpg" if i == 10 else f"person{i % 3}/{i}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BLOCK", 4)


def run(model, source, output, *, flip=True, **how) -> list[str]:
    with start_world("cpu") as world:
        return export.export_embeddings(
            model, open_collection(source), output, world, EmbeddingOptions(flip), **how
        )


def test_folder_in_sorted_order_with_all_columns(model, folder, tmp_path) -> None:
    assert run(model, folder, tmp_path / "e.npz") == []
    with np.load(tmp_path / "e.npz", allow_pickle=False) as got:
        keys = got["key"].tolist()
        assert keys == sorted(keys) and len(keys) == 11
        assert got["label"].tolist() == [0] * 4 + [1] * 3 + [2] * 3 + [-1]
        collection = open_collection(folder)
        want = embed(model, collection.images)
        np.testing.assert_allclose(got["embedding"], want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got["norm"], np.linalg.norm(want, axis=1), rtol=1e-5)
        assert str(got["model_hash"]) == model_hash(model)
    assert not (tmp_path / "e.npz.partial").exists()


def test_records_by_key_and_label(model, faces, tmp_path) -> None:
    with RecordWriter(tmp_path / "train.rec", image_size=(32, 32)) as writer:
        for i, data in enumerate(faces):
            writer.write(data, i // 4)
    run(model, tmp_path / "train.rec", tmp_path / "e.npz", flip=False)
    with np.load(tmp_path / "e.npz") as got:
        assert got["key"].tolist() == [str(i) for i in range(1, 12)]
        assert got["label"].tolist() == [i // 4 for i in range(11)]
        assert got["embedding"].shape == (11, 8)


def test_pair_set_keeps_every_image_and_the_pairs(model, faces, tmp_path) -> None:
    save_pairs_bin(tmp_path / "set.bin", faces[:8], [True, False, True, False])
    run(model, tmp_path / "set.bin", tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as got:
        assert len(got["embedding"]) == 8 and (got["label"] == -1).all()
        assert got["is_same"].tolist() == [True, False, True, False]
        assert got["index_a"].tolist() == [0, 2, 4, 6]


def test_bad_image_stops_by_name_or_is_listed(model, folder, tmp_path) -> None:
    (folder / "person1" / "4.jpg").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"person1/4\.jpg"):
        run(model, folder, tmp_path / "e.npz")
    assert not (tmp_path / "e.npz").exists()
    skipped = run(model, folder, tmp_path / "e.npz", skip_bad=True)
    assert len(skipped) == 1 and "4.jpg" in skipped[0]
    listed = (tmp_path / "e.npz.skipped.txt").read_text()
    assert "person1/4.jpg" in listed
    with np.load(tmp_path / "e.npz") as got:
        assert len(got["key"]) == len(got["label"]) == len(got["norm"]) == 10
        assert "person1/4.jpg" not in got["key"].tolist()
        assert np.isfinite(got["embedding"]).all()


def test_pair_set_cannot_lose_an_image(model, faces, tmp_path) -> None:
    save_pairs_bin(tmp_path / "set.bin", faces[:4], [True, False])
    with pytest.raises(ValueError, match="pairs would be gone"):
        run(model, tmp_path / "set.bin", tmp_path / "e.npz", skip_bad=True)


def test_resume_computes_only_what_is_missing(model, folder, tmp_path, monkeypatch) -> None:
    run(model, folder, tmp_path / "whole.npz")
    computed = []

    def counting(*arguments, **options):
        computed.append(arguments[2])
        if len(computed) == 2:
            raise KeyboardInterrupt
        return embed_rows(*arguments, **options)

    embed_rows = export.embed_rows
    monkeypatch.setattr(export, "embed_rows", counting)
    with pytest.raises(KeyboardInterrupt):
        run(model, folder, tmp_path / "e.npz")
    assert not (tmp_path / "e.npz").exists()
    computed.append(None)  # so that nothing is interrupted again
    run(model, folder, tmp_path / "e.npz", resume=True)
    assert computed == [range(4), range(4, 8), None, range(4, 8), range(8, 11)]
    assert (tmp_path / "e.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_resume_refuses_another_collection(model, folder, tmp_path) -> None:
    partial = tmp_path / "e.npz.partial"
    partial.mkdir()
    (partial / "about.json").write_text(json.dumps({"model": "other"}))
    with pytest.raises(ValueError, match="another model, collection"):
        run(model, folder, tmp_path / "e.npz", resume=True)


def test_output_is_not_overwritten_unasked(model, folder, tmp_path) -> None:
    (tmp_path / "e.npz").write_bytes(b"precious")
    with pytest.raises(ValueError, match="--overwrite"):
        run(model, folder, tmp_path / "e.npz")
    assert (tmp_path / "e.npz").read_bytes() == b"precious"
    with pytest.raises(ValueError, match=r"end in \.npz, \.npy, \.parquet"):
        run(model, folder, tmp_path / "e.csv")


def test_matrix_that_can_be_mapped(model, folder, tmp_path) -> None:
    run(model, folder, tmp_path / "e.npz")
    run(model, folder, tmp_path / "e.npy")
    matrix = np.load(tmp_path / "e.npy", mmap_mode="r")
    with np.load(tmp_path / "e.npz") as want, np.load(tmp_path / "e.rows.npz") as rows:
        assert np.array_equal(matrix, want["embedding"])
        assert set(rows.files) == set(want.files) - {"embedding"}
        assert all(np.array_equal(rows[name], want[name]) for name in rows.files)
        assert rows["flip"] and Preprocessing.from_json(str(rows["preprocessing"])).size == 32


def test_resumed_with_another_option_is_refused(model, folder, tmp_path, monkeypatch) -> None:
    def broken(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "embed_rows", broken)
    with pytest.raises(KeyboardInterrupt):
        run(model, folder, tmp_path / "e.npz")
    monkeypatch.undo()
    for other in ({"flip": False}, {"batch_size": 3}):
        with pytest.raises(ValueError, match="option"), start_world("cpu") as world:
            options = EmbeddingOptions(**other)
            export.export_embeddings(
                model, open_collection(folder), tmp_path / "e.npz", world, options, resume=True
            )


def test_nothing_readable_is_an_error(model, folder, tmp_path) -> None:
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of the 11 images is readable"):
        run(model, folder, tmp_path / "e.npz", skip_bad=True)
    assert not (tmp_path / "e.npz").exists()


def test_parquet(model, folder, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    run(model, folder, tmp_path / "e.npz")
    run(model, folder, tmp_path / "e.parquet")
    table = parquet.read_table(tmp_path / "e.parquet")
    with np.load(tmp_path / "e.npz") as want:
        assert table["key"].to_pylist() == want["key"].tolist()
        np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), want["embedding"])
    assert table.schema.metadata[b"model_hash"].decode() == model_hash(model)


def test_command(cli, model, folder, tmp_path) -> None:
    save_model(model, tmp_path / "m.safetensors")
    words = ["embed", "--model", tmp_path / "m.safetensors", "--output", tmp_path / "e.npz"]
    answer = cli(*words, "--input", folder, "--device", "cpu")
    assert answer.exit_code == 0 and "wrote 11 embeddings" in answer.stdout
    answer = cli(*words, "--input", folder)
    assert answer.exit_code == 2 and "--overwrite" in answer.stderr
    answer = cli(*words, "--input", tmp_path / "nowhere", "--overwrite")
    assert answer.exit_code == 2 and "nowhere does not exist" in answer.stderr
