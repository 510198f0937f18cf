"""Damaged and hostile files: what the reader raises and the check reports."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcface_plus.data.records.check import check_records, find_record_problems
from arcface_plus.data.records.headers import HEADER, pack_header
from arcface_plus.data.records.reader import RecordReader, RecordWriter
from arcface_plus.data.records.recordio import MAGIC_BYTES, frame_record

# -- hostile files -------------------------------------------------------------------------------


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such"):
        RecordReader(tmp_path / "train.rec")
    (tmp_path / "train.rec").touch()
    with pytest.raises(ValueError, match="empty"):
        RecordReader(tmp_path / "train.rec")


@pytest.mark.parametrize(
    "pair", [(np.nan, 5), (5, np.inf), (0, 3), (9, 5), (-3, 5), (1e30, 2e30), (2.5, 4), (5, 1000)]
)
def test_impossible_header_zero(files, tmp_path, pair):
    files.write(tmp_path / "train.rec")
    good = (tmp_path / "train.rec").read_bytes()
    head = frame_record(pack_header(np.array(pair), 0))
    (tmp_path / "train.rec").write_bytes(head + good[len(head) :])
    with pytest.raises(ValueError, match=r"train\.rec: record 0 at byte 0: header-0"):
        RecordReader(tmp_path / "train.rec")


@pytest.mark.parametrize("pair", [(0, 2), (2, 1), (1, 12), (1.5, 2), (np.nan, 2), (1, 1e30)])
def test_impossible_identity_range(files, tmp_path, pair):
    image = pack_header(0, 1) + files.jpeg(1)
    header, identity = pack_header(np.array([2, 3]), 0), pack_header(np.array(pair), 2)
    path = files.write_frames(tmp_path, [header, image, identity], range(3))
    with pytest.raises(ValueError, match=r"record 2 at byte \d+: its range"):
        _ = RecordReader(path).identity_ranges
    assert files.broken_rules(path) == {"ranges"}


def test_header_announcing_more_labels_than_bytes(files, tmp_path):
    bad = HEADER.pack(0xFFFFFFFF, 0, 1, 0) + files.jpeg(1)
    path = files.write_frames(tmp_path, [pack_header(0, 0) + files.jpeg(1), bad], range(2))
    with pytest.raises(ValueError, match="announces 4294967295 labels"):
        RecordReader(path)[1]
    assert files.broken_rules(path) == {"header"}
    cut = HEADER.pack(0xFFFFFFFF, 0, 1, 0) + bytes(16) + MAGIC_BYTES
    path = files.write_frames(tmp_path, [pack_header(0, 0) + files.jpeg(1), cut], range(2))
    assert files.broken_rules(path) == {"parts"}


@pytest.mark.parametrize("offset", [-8, 3, 10**6, 1 << 62, 4])
def test_idx_offset_that_starts_no_record(files, tmp_path, offset):
    images = [pack_header(0, 0) + files.jpeg(1)] * 2
    size = len(frame_record(images[0]))
    path = files.write_frames(tmp_path, images, range(3), [0, size, offset])
    reader = RecordReader(path)
    with pytest.raises(ValueError, match=rf"train\.rec: record 2 at byte {offset}: "):
        reader[2]
    with pytest.raises(ValueError, match=rf"record 2 at byte {offset}: "):
        _ = reader.labels
    problem = find_record_problems(reader)[0]
    assert problem.rule == ("magic" if offset == 4 else "idx-offset")
    assert (problem.key, problem.offset, problem.count) == (2, offset, 1)
    assert "idx" in problem.fix


@settings(max_examples=40)
@given(cut=st.integers(1, 4000))
def test_truncated_file(files, tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    path = files.write(folder / "train.rec", layout="plain")
    path.write_bytes(path.read_bytes()[:-cut])
    found = files.broken_rules(path)
    # Up to three bytes are padding, whose loss costs no image.
    assert "cut" in found or (cut <= 3 and "idx-overlap" in found)
    assert found <= {"cut", "idx-overlap", "empty-class", "count"}
    with pytest.raises(ValueError, match=re.escape(str(path))):
        check_records(RecordReader(path))


@settings(max_examples=150)
@given(position=st.integers(0, 399), value=st.integers(0, 255))
def test_a_flipped_byte_raises_nothing_but_value_errors(tmp_path_factory, position, value):
    folder = tmp_path_factory.mktemp("flip")
    with RecordWriter(folder / "train.rec") as writer:
        for label in (0, 1, 2):
            writer.write(MAGIC_BYTES * 2 + bytes(30), label)
    raw = bytearray((folder / "train.rec").read_bytes())
    raw[position % len(raw)] = value
    (folder / "train.rec").write_bytes(raw)
    for with_idx in (True, False):
        if not with_idx:
            (folder / "train.idx").unlink()
        try:
            with RecordReader(folder / "train.rec") as reader:
                find_record_problems(reader, decode="all")
                assert len(list(reader)) == len(reader)
                assert len(reader.labels) == len(reader)
        except ValueError as error:
            assert str(folder) in str(error)


# -- check ---------------------------------------------------------------------------------------


def test_a_good_file_has_no_problems(files, tmp_path):
    path = files.write(tmp_path / "train.rec")
    seen = []
    problems = check_records(
        RecordReader(path), 4, decode="all", on_progress=lambda done, total: seen.append(done)
    )
    assert problems == []
    assert seen == list(range(1, 11))


def test_check_compares_classes_with_property_and_run(files, tmp_path):
    path = files.write(tmp_path / "train.rec")
    assert files.broken_rules(path, 3) == {"property", "label-range"}
    assert files.broken_rules(path, 5) == {"property", "empty-class"}
    assert {problem.severity for problem in check_records(RecordReader(path), 5)} == {"warning"}
    (tmp_path / "property").write_text("2,112,112\n")
    with pytest.raises(ValueError, match="label 2 is outside the 2 classes of the property"):
        check_records(RecordReader(path))


def test_check_lists_a_bounded_number_of_records(files, tmp_path):
    path = files.write(tmp_path / "train.rec", [1] * 30, num_classes=40)
    problems = find_record_problems(RecordReader(path), 5, listed=4)
    ranged = [problem for problem in problems if problem.rule == "label-range"]
    assert [problem.count for problem in ranged] == [1, 1, 1, 22]
    assert "and 21 more" in str(ranged[-1])


def test_gaps_are_warnings(files, tmp_path):
    path = files.write(tmp_path / "train.rec", layout="plain")
    lines = (tmp_path / "train.idx").read_text().splitlines(keepends=True)
    (tmp_path / "train.idx").write_text("".join(lines[:4] + lines[5:]))
    (problem,) = check_records(RecordReader(path))
    assert (problem.rule, problem.severity) == ("idx-gap", "warning")


def test_check_decodes_images(files, tmp_path):
    bodies = [
        files.jpeg(1),
        files.jpeg(2)[:-200],
        b"not an image at all",
        files.jpeg(3, size=96),
        b"",
    ]
    with RecordWriter(tmp_path / "a.rec") as writer:
        for label, body in enumerate(bodies):
            writer.write(body, label)
    assert files.broken_rules(tmp_path / "a.rec") == {"empty"}
    reader = RecordReader(tmp_path / "a.rec")
    for decode in ("sample", "all"):
        problems = find_record_problems(reader, decode=decode)
        found = {problem.key: problem.rule for problem in problems if problem.rule != "empty"}
        assert found == {2: "image", 3: "image", 4: "image-size", 5: "image"}
    with pytest.raises(ValueError, match="use 'headers', 'sample' or 'all'"):
        find_record_problems(reader, decode="some")
