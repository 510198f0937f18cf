"""Writer: names that appear at close alone, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.data.records.reader import RecordReader, RecordWriter


def test_nothing_appears_before_close_or_after_an_error(files, tmp_path):
    writer = RecordWriter(tmp_path / "train.rec")
    writer.write(files.jpeg(1), 0)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    writer.abort()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), RecordWriter(tmp_path / "train.rec") as writer:
        writer.write(files.jpeg(1), 0)
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_refused_unless_asked(files, tmp_path):
    path = files.write(tmp_path / "train.rec")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"train\.rec exist"):
        RecordWriter(path)
    with pytest.raises(KeyError), RecordWriter(path, overwrite=True):
        raise KeyError
    assert path.read_bytes() == before
    files.write(path, [2], overwrite=True, image_size=None)
    assert len(RecordReader(path)) == 2
    assert not (tmp_path / "property").exists()


@pytest.mark.parametrize("label", [-1, 0.5, float("nan"), 1 << 24, np.array([])])
def test_writer_refuses_impossible_labels(files, tmp_path, label):
    with (
        pytest.raises(ValueError, match="image 1: label"),
        RecordWriter(tmp_path / "a.rec") as writer,
    ):
        writer.write(files.jpeg(1), label)


def test_writer_refuses_what_its_layout_cannot_hold(files, tmp_path):
    path = tmp_path / "a.rec"
    with pytest.raises(ValueError, match="label 0 comes back"), RecordWriter(path) as writer:
        for label in (0, 1, 0):
            writer.write(files.jpeg(1), label)
    with pytest.raises(ValueError, match="leave it out"), RecordWriter(path) as writer:
        writer.write(files.jpeg(1), 0, key=7)
    with pytest.raises(ValueError, match="layout='plain'"), RecordWriter(path) as writer:
        writer.write_raw(b"")
    with pytest.raises(ValueError, match="num_classes=1, but"):
        files.write(path, [1, 1], num_classes=1)
    with (
        pytest.raises(ValueError, match="written twice"),
        RecordWriter(path, layout="plain") as writer,
    ):
        writer.write(files.jpeg(1), 0, key=3)
        writer.write(files.jpeg(1), 0, key=3)
    with pytest.raises(ValueError, match=r"\*\.rec"):
        RecordWriter(tmp_path / "a.bin")
    with pytest.raises(ValueError, match="layout 'other'"):
        RecordWriter(path, layout="other")
    assert list(tmp_path.iterdir()) == []
