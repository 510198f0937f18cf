"""Several record files as one set: images, labels, names and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.records.parts import RecordParts, find_parts
from arcface_plus.data.records.reader import RecordReader, RecordWriter
from arcface_plus.data.settings import DataConfig
from arcface_plus.data.sources.image_source import open_source
from arcface_plus.runs.train import train

LABELS = [[0, 0, 1], [1, 2, 2, 3], [4]]
ALL = [label for labels in LABELS for label in labels]


def write(path: Path, labels: list[int]) -> None:
    rng = np.random.default_rng(len(labels))
    with RecordWriter(path, layout="plain") as writer:
        for label in labels:
            writer.write(encode_jpeg(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)), label)
    path.with_name("property").unlink()  # of a part, but the next one's file is the same


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, labels in zip((1, 2, 10), LABELS, strict=True):
        write(tmp_path / "set" / f"train_{number}.rec", labels)
    return tmp_path / "set"


def opened(path, **settings) -> RecordParts:
    source = open_source(DataConfig(source="records", path=path, size=24, **settings))
    assert isinstance(source, RecordParts)
    return source


def test_parts_are_one_set_in_the_order_of_their_numbers(folder: Path) -> None:
    files = [folder / f"train_{number}.rec" for number in (1, 2, 10)]
    assert find_parts(folder) == files
    for source in (opened(folder), opened(files)):
        assert source.labels.tolist() == ALL and source.num_classes == 5
        assert len(source) == 8
        for index in range(8):
            part = next(p for p, end in enumerate((3, 7, 8)) if index < end)
            place = index - (0, 3, 7)[part]
            alone = open_source(DataConfig(source="records", path=files[part], size=24))
            np.testing.assert_array_equal(source[index], alone[place])
            assert source.read(index)[1] == ALL[index]
            assert source.encoded(index) == RecordReader(files[part])[place].data
            assert source.describe(index) == f"{files[part]}, record {place}"
        assert any("1 classes have images in several of the 3" in w for w in source.warnings)
        with pytest.raises(IndexError, match="image 8 of 8"):
            source[8]


def test_classes_of_the_set_count_not_those_of_a_part(folder: Path) -> None:
    assert opened(folder, num_classes=5).warnings == opened(folder).warnings
    source = opened([folder / "train_1.rec", folder / "train_10.rec"])
    assert "2 classes have no image in any of the record files" in source.warnings
    with pytest.raises(ValueError, match="label 4 is outside the 4 classes"):
        opened(folder, num_classes=4)


def test_a_damaged_part_is_named(folder: Path) -> None:
    path = folder / "train_2.rec"
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"train_2\.rec.*cut"):
        opened(folder)


def test_reading_ahead_finds_the_parts_of_a_run(folder: Path, monkeypatch) -> None:
    asked: list[tuple[str, int, int]] = []
    monkeypatch.setattr(
        RecordReader, "read_ahead", lambda self, a, b: asked.append((self.path.name, a, b))
    )
    opened(folder).read_ahead([(1, 4), (7, 8)])
    assert asked == [("train_1.rec", 1, 3), ("train_2.rec", 0, 1), ("train_10.rec", 0, 1)]


def test_reading_ahead_asks_for_the_bytes_of_the_run(folder: Path, monkeypatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "os.posix_fadvise", lambda fd, start, size, wish: asked.append((start, size))
    )
    reader = RecordReader(folder / "train_2.rec")
    offsets, size = reader.index.offsets.tolist(), (folder / "train_2.rec").stat().st_size
    reader.read_ahead(1, 3)
    reader.read_ahead(2, 4)
    assert asked == [(offsets[1], offsets[3] - offsets[1]), (offsets[2], size - offsets[2])]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "has no .rec file"),
        (("train.rec", "test.rec"), "test.rec, train.rec: files of one set"),
    ],
)
def test_folders_in_which_it_is_not_clear_what_is_meant(tmp_path, names, message) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_parts(tmp_path)


def test_lists_are_for_records() -> None:
    with pytest.raises(ValueError, match="needs one path, not a list"):
        DataConfig(source="folder", path=[Path("a"), Path("b")])
    with pytest.raises(ValueError, match="empty list"):
        DataConfig(source="records", path=[])


def test_a_run_trains_on_parts_in_windows_and_resumes(folder: Path, tiny: Path) -> None:
    write(folder / "train_11.rec", [label % 5 for label in range(40)])
    words = ["--data.source", "records", "--data.path", f"[{folder}]", "--data.num_classes", "5"]
    words += ["--data.order", "windowed", "--data.size", "32", "--schedule.kind", "milestones"]
    once = train(tiny, [*words, "--train.steps", "6", "--name", "once"])
    train(tiny, [*words, "--train.steps", "3", "--name", "twice"])
    twice = train(tiny, [*words, "--train.steps", "6", "--name", "twice"], resume="auto")
    files = [path / "model.safetensors" for path in (once, twice)]
    assert files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(ValueError, match=r"data\.order: 'windowed' → 'shuffled'"):
        train(tiny, [*words, "--data.order", "shuffled", "--name", "twice"], resume="auto")
