"""Stored embeddings of the training images: made once, shared, refused where they do not fit."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from arcface_plus import load_config, load_model
from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.sources.image_source import open_source
from arcface_plus.data.sources.synthetic import SyntheticFaces
from arcface_plus.distributed import start_world
from arcface_plus.evaluation.embedding.embed import embed
from arcface_plus.models import build_model, save_model
from arcface_plus.runs.guides.stored import StoredEmbeddings
from arcface_plus.training.settings import EmbeddedConfig

DRAWN = SyntheticFaces(4, 5, size=32, seed=2)


class Quiet:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    for index in range(len(DRAWN)):
        image, label = DRAWN.read(index)
        folder = tmp_path / "faces" / f"person{label}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.jpg").write_bytes(encode_jpeg(image))
    return tmp_path / "faces"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A net of 16 pixels, which is not the size of training."""
    model = build_model("iresnet18", size=16, embedding_dim=8, width=8)
    save_model(model.eval(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def stored(tiny: Path, faces: Path, *more: str, **wanted: object) -> StoredEmbeddings:
    words = ["--data.source", "folder", "--data.path", str(faces), "--data.num_classes", "null"]
    config = load_config(tiny, [*words, *more])
    source = open_source(config.data, seed=config.seed)
    return StoredEmbeddings("teacher", EmbeddedConfig.model_validate(wanted), config, source)


def table(each: StoredEmbeddings, monitor: Quiet | None = None):
    with start_world("cpu") as world:
        return each.table(world, monitor or Quiet())


def rewrite(path: Path, **changes: object) -> None:
    """Write a named file again with other columns; None leaves one out."""
    rows = path.with_suffix(".rows.npz")
    with np.load(rows) as held:
        columns = {name: held[name] for name in held.files} | changes
    matrix = columns.pop("embedding", None)
    np.savez(rows, **{name: value for name, value in columns.items() if value is not None})
    if matrix is not None:
        np.save(path, matrix)


def test_made_once_at_the_nets_own_size_and_then_found(tiny: Path, faces: Path, net: Path) -> None:
    monitor, path = Quiet(), faces.parent / "kept.npy"
    first = table(stored(tiny, faces, model=net, embeddings=path), monitor)
    words = ["--data.source", "folder", "--data.path", str(faces), "--data.num_classes", "null"]
    source = open_source(load_config(tiny, words).data)
    want = embed(load_model(net), source, resize=True)
    assert np.array_equal(first.take(np.arange(20)).numpy(), want)
    assert len(monitor.lines) == 1 and "embedding 20 images once with" in monitor.lines[0]
    made = path.stat().st_mtime_ns
    again = table(stored(tiny, faces, model=net, embeddings=path), monitor)
    alone = table(stored(tiny, faces, embeddings=path), monitor)
    assert np.array_equal(again.take(np.arange(20)), alone.take(np.arange(20)))
    assert path.stat().st_mtime_ns == made and len(monitor.lines) == 1
    assert isinstance(again.matrix, np.memmap)


def test_embeds_own_file_in_any_order_with_more_images(
    cli, tiny: Path, faces: Path, net: Path
) -> None:
    out = faces.parent / "all.npz"
    done = cli("embed", "--model", net, "--input", faces, "--output", out, "--resize")
    assert done.exit_code == 0, done.output
    want = table(stored(tiny, faces, embeddings=out)).take(np.arange(20))
    with np.load(out) as held:
        columns = {name: held[name] for name in held.files}
    turned = np.random.default_rng(0).permutation(20)
    columns |= {name: columns[name][turned] for name in ("key", "label", "norm", "embedding")}
    columns["key"] = np.append(columns["key"], "somebody/else.jpg")
    columns["label"] = np.append(columns["label"], 9)
    columns["embedding"] = np.vstack([columns["embedding"], np.ones(8, np.float32)])
    np.savez(out, **columns)
    got = table(stored(tiny, faces, model=net, embeddings=out)).take(np.arange(20))
    assert np.array_equal(got, want)


def test_keys_of_records_are_those_of_embed(cli, tiny: Path, faces: Path, net: Path) -> None:
    record = faces.parent / "packed" / "train.rec"
    assert cli("data", "pack", faces, record.parent, "--resize").exit_code == 0
    out = faces.parent / "records.npy"
    done = cli("embed", "--model", net, "--input", record, "--output", out, "--resize")
    assert done.exit_code == 0, done.output
    words = ["--data.source", "records", "--data.path", str(record), "--data.num_classes", "null"]
    config = load_config(tiny, words)
    source = open_source(config.data)
    wanted = EmbeddedConfig(model=net, embeddings=out)
    assert len(table(StoredEmbeddings("teacher", wanted, config, source)).rows) == 20


def test_refused_before_any_work(tiny: Path, faces: Path, net: Path) -> None:
    path = faces.parent / "kept.npy"
    table(stored(tiny, faces, model=net, embeddings=path))
    keep = {p: p.read_bytes() for p in (path, path.with_suffix(".rows.npz"))}
    good = np.load(path)
    with np.load(path.with_suffix(".rows.npz")) as held:
        keys, labels = held["key"], held["label"]
    nan = good.copy()
    nan[3, 2] = np.nan
    for message, changes in {
        "lacks 1 of the 20 training images": {"key": np.where(np.arange(20) == 4, "x", keys)},
        "more than one embedding of an image": {"key": np.where(np.arange(20) == 4, keys[3], keys)},
        "as person 2, but the training data have it as 0": {"label": np.roll(labels, 10)},
        "was not made by": {"model_hash": np.array("another")},
        "no embedding for each of its 20 keys": {"embedding": good[:19]},
        "has embeddings of 7 numbers": {"embedding": good[:, :7]},
        "numbers that are not finite": {"embedding": nan},
        r"another embedding of person.*cosine": {"embedding": np.roll(good, 1, axis=1)},
    }.items():
        rewrite(path, **changes)
        with pytest.raises(ValueError, match=rf"train\.teacher: .*{message}"):
            stored(tiny, faces, model=net, embeddings=path)
        for file, content in keep.items():
            file.write_bytes(content)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"train\.teacher: .*not readable as a matrix"):
        stored(tiny, faces, model=net, embeddings=path)


def test_other_images_under_the_same_names_are_noticed(tiny: Path, faces: Path, net: Path) -> None:
    path = faces.parent / "kept.npy"
    table(stored(tiny, faces, model=net, embeddings=path))
    first, second = (
        sorted((faces / "person0").iterdir())[0],
        sorted((faces / "person3").iterdir())[0],
    )
    content = first.read_bytes(), second.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    first.write_bytes(encode_jpeg(noise))
    with pytest.raises(ValueError, match="the image has changed, or the net"):
        stored(tiny, faces, model=net, embeddings=path)
    first.write_bytes(content[0])
    (faces / "person1" / "new.jpg").write_bytes(content[1])
    with pytest.raises(ValueError, match=r"lacks 1 of the 21 training images, such as person1/new"):
        stored(tiny, faces, model=net, embeddings=path)


def test_refused_paths(tiny: Path, faces: Path, net: Path, tmp_path: Path) -> None:
    for wanted, message in (
        ({"model": tmp_path / "gone.onnx"}, "gone.onnx"),
        ({"embeddings": tmp_path / "gone.npy"}, "There is no file"),
        ({"model": net, "embeddings": tmp_path / "no" / "e.npy"}, "folder of embeddings .* exist"),
        ({"model": net, "embeddings": tmp_path / "e.txt"}, "files of embeddings end in"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=rf"train\.teacher: .*{message}"):
            stored(tiny, faces, **wanted)


def test_an_unreadable_image_is_left_out_where_the_run_goes_on_without_it(
    tiny: Path, faces: Path, net: Path
) -> None:
    broken = sorted((faces / "person2").iterdir())[0]
    broken.write_bytes(b"no image")
    path, monitor = faces.parent / "kept.npy", Quiet()
    on = ("--data.on_bad_image", "quarantine")
    rows = table(stored(tiny, faces, *on, model=net, embeddings=path), monitor).rows
    assert (rows < 0).sum() == 1 and "left out 1 images" in monitor.lines[1]
    assert (table(stored(tiny, faces, *on, embeddings=path)).rows == rows).all()
    with pytest.raises(ValueError, match="lacks 1 of the 20 training images"):
        stored(tiny, faces, model=net, embeddings=path)
    path.unlink()
    with pytest.raises(ValueError, match="remove the image, or set --data"):
        table(stored(tiny, faces, model=net, embeddings=path))


def make(tiny: Path, faces: Path, net: Path, path: Path, said: multiprocessing.Queue) -> None:
    monitor = Quiet()
    each = stored(tiny, faces, model=net, embeddings=path)
    said.put((table(each, monitor).take(np.arange(20)).numpy().tobytes(), len(monitor.lines)))


def test_two_runs_at_once_make_it_once(tiny: Path, faces: Path, net: Path) -> None:
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    words = (tiny, faces, net, faces.parent / "kept.npy", said)
    runs = [context.Process(target=make, args=words) for _ in range(2)]
    for run in runs:
        run.start()
    found = [said.get(timeout=120) for _ in runs]
    for run in runs:
        run.join()
    assert found[0][0] == found[1][0] and sum(lines for _, lines in found) == 1


def test_a_preprocessing_may_be_stated(tiny: Path, faces: Path, net: Path) -> None:
    fields = {"mean": 0, "std": 1, "channels": "bgr", "size": 16, "flip_sum": False}
    stated = stored(tiny, faces, model=net, preprocessing=fields)
    assert stated.model is not None and stated.model.preprocessing.channels == "bgr"
    with pytest.raises(ValueError, match=r"train\.teacher: .*lacks channels"):
        stored(tiny, faces, model=net, preprocessing={"mean": 0})
