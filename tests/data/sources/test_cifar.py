"""CIFAR's files: read as torchvision reads them, without running them; damage is named."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from arcface_plus.data.settings import DataConfig
from arcface_plus.data.sources import cifar
from arcface_plus.data.sources.cifar import LAYOUTS, CifarImages
from arcface_plus.data.sources.image_source import open_source, open_test_source

COUNTS = {"train": 7, "test": 5}  # images a file
THEIRS = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}


def python_2(value: Any) -> bytes:
    """Pickle as Python 2's cPickle did at protocol 2: text is bytes, written by its length."""
    if isinstance(value, dict):
        items = b"".join(python_2(k) + python_2(v) for k, v in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(python_2, value)) + b"e"
    if isinstance(value, bytes):
        return b"T" + len(value).to_bytes(4, "little") + value
    if isinstance(value, np.ndarray):
        rows, columns = value.shape
        shape = b"".join(b"J" + n.to_bytes(4, "little") for n in (rows, columns))
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
            + shape
            + b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
            + b"J\xff\xff\xff\xffK\x00tb\x89"
            + python_2(value.tobytes())
            + b"tb"
        )
    assert isinstance(value, int)
    return b"J" + value.to_bytes(4, "little", signed=True)


def batch(name: str, count: int, seed: int) -> dict[bytes, Any]:
    rng = np.random.default_rng(seed)
    classes = LAYOUTS[name].classes
    content = {
        b"batch_label": b"a batch",
        LAYOUTS[name].labels_key.encode(): rng.integers(0, classes, count).tolist(),
        b"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        b"filenames": [b"%d.png" % i for i in range(count)],
    }
    if name == "cifar100":
        content[b"coarse_labels"] = rng.integers(0, 20, count).tolist()
    return content


def save(path: Path, content: Any, protocol: int | None = None) -> None:
    data = b"\x80\x02" + python_2(content) + b"." if protocol is None else None
    path.write_bytes(data or pickle.dumps(content, protocol))


def write(root: Path, name: str, protocol: int | None = None) -> Path:
    """Write a small data set in the real files' form and return its folder."""
    layout = LAYOUTS[name]
    folder = root / layout.folder
    folder.mkdir(parents=True)
    for seed, (file, _) in enumerate((*layout.train, *layout.test)):
        kind = "test" if (file, _) in layout.test else "train"
        save(folder / file, batch(name, COUNTS[kind], seed), protocol)
    names = [b"name %d" % i for i in range(layout.classes)]
    save(folder / layout.meta[0], {layout.names_key.encode(): names, b"num_vis": 3072}, protocol)
    return folder


@pytest.fixture(params=LAYOUTS)
def name(request) -> str:
    return request.param


@pytest.fixture
def folder(tmp_path: Path, name: str) -> Path:
    return write(tmp_path, name)


def publish(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
    """Let torchvision and us take the files in ``folder`` for the published ones."""

    def md5(file: str) -> str:
        return hashlib.md5((folder / file).read_bytes(), usedforsecurity=False).hexdigest()

    theirs, layout = THEIRS[name], LAYOUTS[name]
    monkeypatch.setattr(theirs, "train_list", [[f, md5(f)] for f, _ in layout.train])
    monkeypatch.setattr(theirs, "test_list", [[f, md5(f)] for f, _ in layout.test])
    monkeypatch.setattr(theirs, "meta", {**theirs.meta, "md5": md5(layout.meta[0])})
    changed = replace(
        layout,
        train=tuple((f, md5(f)) for f, _ in layout.train),
        test=tuple((f, md5(f)) for f, _ in layout.test),
        meta=(layout.meta[0], md5(layout.meta[0])),
    )
    monkeypatch.setitem(cifar.LAYOUTS, name, changed)


def test_names_and_checksums_are_those_of_torchvision(name):
    layout, theirs = LAYOUTS[name], THEIRS[name]
    assert [list(entry) for entry in layout.train] == theirs.train_list
    assert [list(entry) for entry in layout.test] == theirs.test_list
    meta = {"filename": layout.meta[0], "md5": layout.meta[1], "key": layout.names_key}
    assert meta == theirs.meta
    assert (layout.folder, layout.archive) == (theirs.base_folder, theirs.filename)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_equals_torchvision(tmp_path, monkeypatch, name, train, protocol):
    """The same files, read by torchvision with the standard pickle module."""
    text = protocol is not None  # torchvision decodes Python 2's text, and finds no key in bytes
    folder = write(tmp_path, name)
    if text:
        for path in folder.iterdir():
            content = pickle.loads(path.read_bytes(), encoding="latin1")
            path.write_bytes(pickle.dumps(content, protocol))
    publish(monkeypatch, folder, name)
    theirs = THEIRS[name](root=str(tmp_path), train=train, download=False)
    ours = CifarImages(tmp_path, name, train=train)
    assert len(ours) == len(theirs) > 0 and ours.warnings == ()
    assert ours.class_names == theirs.classes
    for index in range(len(ours)):
        image, label = ours.read(index)
        expected, expected_label = theirs[index]
        np.testing.assert_array_equal(image, np.asarray(expected))
        assert label == expected_label == ours.labels[index] and isinstance(label, int)
        assert image.shape == (32, 32, 3) and image.dtype == np.uint8
        image[:] = 0  # what is read may be changed
    assert ours.read(0)[0].any()


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_files_with_keys_of_bytes(tmp_path, name, protocol):
    CifarImages(write(tmp_path, name, protocol), name, train=True).read(0)


def test_folder_or_the_one_that_holds_it(folder, name):
    for path in (folder, folder.parent, str(folder)):
        assert len(CifarImages(path, name, train=False)) == COUNTS["test"]


def test_parts_agree_in_classes_and_share_no_image(folder, name):
    train, test = (CifarImages(folder, name, train=train) for train in (True, False))
    assert train.class_names == test.class_names and train.num_classes == test.num_classes
    assert train.num_classes == len(train.class_names) == LAYOUTS[name].classes
    assert train.labels.dtype == np.int64 and train.labels.max() < train.num_classes
    seen = {train.read(i)[0].tobytes() for i in range(len(train))}
    assert len(seen) == len(train)
    assert not seen & {test.read(i)[0].tobytes() for i in range(len(test))}


def test_a_run_opens_them_by_name(folder, name):
    settings = DataConfig(source=name, path=folder.parent, size=32)
    train, test = open_source(settings), open_test_source(settings)
    assert len(train) == COUNTS["train"] * len(LAYOUTS[name].train)
    assert len(test) == COUNTS["test"]
    assert train.warnings and train.num_classes == test.num_classes == LAYOUTS[name].classes


def test_images_are_described_by_file_and_place(folder, name):
    source = CifarImages(folder, name, train=True)
    described = [source.describe(i) for i in range(len(source))]
    assert len(set(described)) == len(source)
    assert described[0] == f"{folder / LAYOUTS[name].train[0][0]}, image 0"
    assert described[-1] == f"{folder / LAYOUTS[name].train[-1][0]}, image {COUNTS['train'] - 1}"
    with pytest.raises(IndexError):
        source.read(len(source))


def test_workers_may_receive_it(folder, name):
    source = CifarImages(folder, name, train=True)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(3)[0], source.read(3)[0])


def test_files_that_are_not_the_published_ones_are_named(folder, name):
    warnings = CifarImages(folder, name, train=True).warnings
    assert len(warnings) == 1 + len(LAYOUTS[name].train)
    assert str(folder / LAYOUTS[name].train[-1][0]) in warnings[-1]
    assert LAYOUTS[name].train[-1][1] in warnings[-1]


def test_absent_data_say_where_to_get_them(tmp_path, name):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError) as caught:
            CifarImages(path, name, train=True)
        message = str(caught.value)
        assert f"data.path {path}" in message and "https://www.cs.toronto.edu" in message
        assert LAYOUTS[name].archive in message and LAYOUTS[name].folder in message


def test_a_missing_file_is_named(folder, name):
    (folder / LAYOUTS[name].test[0][0]).unlink()
    for train in (True, False):
        with pytest.raises(FileNotFoundError, match=LAYOUTS[name].test[0][0]):
            CifarImages(folder, name, train=train)


@pytest.mark.parametrize("kept", [0, 1, 10, 100, -1])
def test_truncated_files_are_named(folder, name, kept):
    for file in (LAYOUTS[name].train[-1][0], LAYOUTS[name].meta[0]):
        path = folder / file
        whole = path.read_bytes()
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=rf"{file}: not readable .*ends early"):
            CifarImages(folder, name, train=True)
        path.write_bytes(whole)


class Payload:
    """Unpickling this would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def test_code_in_a_file_is_refused_and_not_run(tmp_path, folder, name):
    file = LAYOUTS[name].train[0][0]
    content = {**batch(name, 3, 0), b"extra": Payload(tmp_path / "ran")}
    (folder / file).write_bytes(pickle.dumps(content, 2))
    with pytest.raises(ValueError, match=rf"{file}: .*Nothing in it was run"):
        CifarImages(folder, name, train=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({b"data": None}, "has no data, only batch_label"),
        ({b"labels": None}, "has no .*labels, only"),
        ({b"data": [1, 2]}, "an image, but is no table of bytes"),
        ({b"data": np.zeros((3, 3072), dtype=np.int64)}, "an image, but is no table of bytes"),
        ({b"data": np.zeros(3072, dtype=np.uint8)}, "an image, but is no table of bytes"),
        (
            {b"data": np.zeros((3, 3071), dtype=np.uint8)},
            r"3072 bytes an image, .*\(3, 3071\)",
        ),
        ({b"data": np.zeros((0, 3072), dtype=np.uint8), b"labels": []}, "3072 bytes an image"),
        ({b"labels": [0, 1]}, "3 images have 2 labels"),
        ({b"labels": [0, 1, -1]}, "image 2: label -1 is not one of"),
        ({b"labels": [0, 100, 1]}, "image 1: label 100 is not one of"),
        ({b"labels": [0, True, 1]}, "no list of whole numbers"),
        ({b"labels": b"abc"}, "no list of whole numbers"),
    ],
)
def test_content_that_does_not_fit_is_named(folder, name, change, match):
    key = LAYOUTS[name].labels_key.encode()
    content = batch(name, 3, 0)
    for wanted, value in change.items():
        wanted = key if wanted == b"labels" else wanted
        content = {k: v for k, v in content.items() if k != wanted}
        if value is not None:
            content[wanted] = value
    file = LAYOUTS[name].train[0][0]
    save(folder / file, content, 2)
    with pytest.raises(ValueError, match=match) as caught:
        CifarImages(folder, name, train=True)
    assert str(caught.value).startswith(str(folder / file))


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (None, "has no .*names, only num_vis"),
        ([b"a", b"b"], "classes, but this names 2"),
        ("twice", "but this names"),
        ([1, 2], "no list of names"),
        (b"names", "no list of names"),
    ],
)
def test_class_names_that_do_not_fit_are_named(folder, name, names, match):
    layout = LAYOUTS[name]
    if names == "twice":
        names = [b"same"] * layout.classes
    meta: dict[bytes, Any] = {b"num_vis": 3072}
    if names is not None:
        meta[layout.names_key.encode()] = names
    save(folder / layout.meta[0], meta, 2)
    with pytest.raises(ValueError, match=match) as caught:
        CifarImages(folder, name, train=True)
    assert str(caught.value).startswith(str(folder / layout.meta[0]))


def test_random_damage_is_named_or_read(folder, name):
    """Whatever a flipped byte does, it is either in a pixel or an error that names the file."""
    file = LAYOUTS[name].test[0][0]
    whole = (folder / file).read_bytes()
    chance = random.Random(0)
    for _ in range(100):
        data = bytearray(whole)
        data[chance.randrange(len(data))] = chance.randrange(256)
        (folder / file).write_bytes(bytes(data))
        try:
            source = CifarImages(folder, name, train=False)
            assert source.read(0)[0].shape == (32, 32, 3)
        except ValueError as error:
            assert str(error).startswith(str(folder / file))
