"""A record file that was cut is called cut, wherever; other damage is not."""

from __future__ import annotations

import re

import numpy as np
import pytest

from arcface_plus.data.records.check import check_record_file, find_record_problems
from arcface_plus.data.records.headers import pack_header
from arcface_plus.data.records.reader import RecordReader, RecordWriter
from arcface_plus.data.records.recordio import MAGIC_BYTES, CutRecordError, frame_record


def offsets_of(path):
    table = np.loadtxt(path.with_suffix(".idx"), dtype=np.int64, delimiter="\t")
    return np.sort(table[:, 1])


@pytest.mark.parametrize("layout", ["insightface", "plain"])
@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("behind", [0, 1, 4, 8, 20, 40, -8])
def test_the_place_and_what_is_left(files, tmp_path, layout, indexed, behind):
    """Cut ``behind`` bytes behind the start of record 6, which is inside it or before it."""
    path = files.write(tmp_path / "train.rec", layout=layout)
    offsets = offsets_of(path)
    size = int(offsets[6]) + behind
    start, whole = (offsets[5], 5) if behind < 0 else (offsets[6], 6)
    path.write_bytes(path.read_bytes()[:size])
    listed = f" of {len(offsets)} listed" if indexed else ""
    words = rf"cut: it ends at byte {size}, .* byte {start}; {whole}{listed} records are whole"
    if not indexed:
        path.with_suffix(".idx").unlink()
        if behind == 0:
            return  # a shorter file without an index is a whole one
    if layout == "insightface" or not indexed:
        with pytest.raises(CutRecordError, match=words):
            RecordReader(path)
    checked = check_record_file(path)
    cut = [problem for problem in checked.problems if problem.rule == "cut"]
    assert len(cut) == 1 and re.search(words, cut[0].message) and cut[0].severity == "error"
    assert str(cut[0]).count(str(path)) == 1 and "copy the file again" in str(cut[0])
    others = {problem.rule for problem in checked.problems} - {"cut"}
    assert others <= {"empty-class", "idx-overlap"}


def test_a_record_of_several_parts_may_be_the_cut_one(files, tmp_path):
    with RecordWriter(tmp_path / "train.rec", layout="plain") as writer:
        for label in range(3):
            writer.write(MAGIC_BYTES * 4 + files.jpeg(label), label)
    path = tmp_path / "train.rec"
    path.write_bytes(path.read_bytes()[:-500])
    (cut,) = [p for p in check_record_file(path, decode="headers").problems if p.rule == "cut"]
    assert "2 of 3 listed records are whole" in cut.message


def test_a_length_that_lies_is_no_cut(files, tmp_path):
    path = files.write(tmp_path / "train.rec", layout="plain")
    data = bytearray(path.read_bytes())
    at = int(offsets_of(path)[3]) + 4
    data[at : at + 4] = (2**28).to_bytes(4, "little")
    path.write_bytes(data)
    assert "truncated" in files.broken_rules(path) and "cut" not in files.broken_rules(path)


def test_records_that_overlap_are_not_followed(files, tmp_path):
    """Else a record of many parts that is listed many times would take hours."""
    long = pack_header(0, 0) + MAGIC_BYTES * 20_000 + files.jpeg(1)
    frame = frame_record(long)
    (tmp_path / "train.rec").write_bytes(frame)
    lines = [f"{key}\t0\n" for key in range(20_000)]
    (tmp_path / "train.idx").write_text("".join(lines))
    reader = RecordReader(tmp_path / "train.rec")
    (problem,) = find_record_problems(reader, decode="all")
    assert problem.rule == "idx-overlap"


def test_copies_and_their_labels(files, tmp_path):
    with RecordWriter(tmp_path / "train.rec") as writer:
        for value, label in ((1, 0), (2, 0), (1, 0), (3, 1), (2, 1)):
            writer.write(files.jpeg(value), label)
    problems = check_record_file(tmp_path / "train.rec").problems
    found = {problem.rule: (problem.key, problem.message, problem.severity) for problem in problems}
    assert found == {
        "copy": (3, "the same bytes as record 1", "warning"),
        "copy-label": (5, "the same bytes as record 2", "error"),
    }
    assert check_record_file(tmp_path / "train.rec", decode="sample").problems == []


@pytest.mark.parametrize("text", ["16777217,112,112", "5,32769,112", f"{'9' * 99},1,1"])
def test_property_that_claims_too_much(files, tmp_path, text):
    path = files.write(tmp_path / "train.rec")
    (tmp_path / "property").write_text(text)
    with pytest.raises(ValueError, match=r"property: .* at most 16777216 people"):
        RecordReader(path)
