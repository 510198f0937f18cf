"""The pass that recognises sound files: it finds no less than the rules, one by one, do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcface_plus.data.records import check, sound
from arcface_plus.data.records.reader import RecordReader


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    monkeypatch.setattr(sound, "_BLOCK", 4)


def found(path: Path, *, sound_pass: bool, num_classes: int | None = None) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        if not sound_pass:
            patch.setattr(check, "sound_labels", lambda reader: None)
        return [str(p) for p in check.find_record_problems(RecordReader(path), num_classes)]


@pytest.mark.parametrize("layout", ["insightface", "plain"])
def test_labels_of_a_sound_file(files, tmp_path, layout):
    path = files.write(tmp_path / "train.rec", layout=layout)
    labels = sound.sound_labels(RecordReader(path))
    assert labels is not None
    one_by_one = [float(np.ravel(record.label)[0]) for record in RecordReader(path)]
    assert labels.tolist() == one_by_one == np.repeat(range(4), files.people).tolist()
    reader = RecordReader(path)
    check.check_records(reader)
    assert reader.__dict__["labels"].dtype == np.int64  # not read again
    assert reader.labels.tolist() == one_by_one


@pytest.mark.parametrize("layout", ["insightface", "plain"])
@pytest.mark.parametrize("num_classes", [2, 4, 7])
def test_classes_are_counted_all_the_same(files, tmp_path, layout, num_classes):
    path = files.write(tmp_path / "train.rec", layout=layout)
    assert sound.sound_labels(RecordReader(path)) is not None
    quick = found(path, sound_pass=True, num_classes=num_classes)
    assert quick == found(path, sound_pass=False, num_classes=num_classes)
    assert bool(quick) == (num_classes != 4)


@settings(max_examples=300)
@given(
    layout=st.sampled_from(["insightface", "plain"]),
    record=st.integers(0, 30),
    place=st.integers(0, 39),
    value=st.one_of(st.sampled_from([0, 1, 2, 0x20, 0x40, 0x7F, 0xFF]), st.integers(0, 255)),
)
def test_one_other_byte_in_a_header(files, tmp_path_factory, layout, record, place, value):
    path = files.write(tmp_path_factory.mktemp("sound") / "train.rec", layout=layout)
    offsets = RecordReader(path).index.offsets
    data = bytearray(path.read_bytes())
    data[int(offsets[record % len(offsets)]) + place] = value
    path.write_bytes(data)
    try:
        RecordReader(path).close()
    except ValueError:
        return  # not opened at all
    assert found(path, sound_pass=True) == found(path, sound_pass=False)


@pytest.mark.parametrize("change", [lambda d: d[:-4], lambda d: d + bytes(8), lambda d: d[:-400]])
def test_a_file_that_ends_elsewhere(files, tmp_path, change):
    path = files.write(tmp_path / "train.rec", layout="plain")
    path.write_bytes(change(path.read_bytes()))
    assert sound.sound_labels(RecordReader(path)) is None
    problems = found(path, sound_pass=True)
    assert problems == found(path, sound_pass=False) and problems


def test_lines_of_the_idx_in_another_order_or_left_out(files, tmp_path):
    path = files.write(tmp_path / "train.rec", layout="plain")
    index = path.with_suffix(".idx")
    lines = index.read_text().splitlines(keepends=True)
    for changed in (lines[::-1], lines[1:], lines[:-1], lines[:3] + lines[4:]):
        index.write_text("".join(changed))
        assert sound.sound_labels(RecordReader(path)) is None
        assert found(path, sound_pass=True) == found(path, sound_pass=False)
