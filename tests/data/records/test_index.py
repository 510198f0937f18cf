"""Indexes in any order, without an .idx, malformed; the property file."""

from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.data.records.headers import pack_header
from arcface_plus.data.records.reader import RecordReader, RecordWriter


def test_idx_in_any_order(files, tmp_path):
    path = files.write(tmp_path / "train.rec")
    expected = list(RecordReader(path))
    lines = (tmp_path / "train.idx").read_text().splitlines(keepends=True)
    (tmp_path / "train.idx").write_text("".join(np.random.default_rng(0).permutation(lines)))
    reader = RecordReader(path)
    assert list(reader) == expected
    np.testing.assert_array_equal(reader.labels, np.repeat(range(4), files.people))


def test_plain_files_keep_the_order_of_the_idx(files, tmp_path):
    path = tmp_path / "a.rec"
    with RecordWriter(path, layout="plain") as writer:
        for key in (5, 900, 2):
            writer.write(files.jpeg(key % 200), key, key=key)
    reader = RecordReader(path)
    assert [record.key for record in reader] == [5, 900, 2]
    np.testing.assert_array_equal(reader.labels, [5, 900, 2])
    assert reader.read(900) == pack_header(900, 900) + files.jpeg(100)


@pytest.mark.parametrize("layout", ["insightface", "plain"])
def test_without_idx_keys_are_positions(files, tmp_path, layout):
    path = files.write(tmp_path / "train.rec", layout=layout)
    expected = RecordReader(path)
    (tmp_path / "train.idx").unlink()
    reader = RecordReader(tmp_path)
    assert list(reader) == list(expected)
    np.testing.assert_array_equal(reader.labels, expected.labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no lines"),
        ("0\t0\n0\t40\n", "key 0 is listed more than once"),
        ("0\t0\nx\t40\n", "two whole numbers"),
        ("0\t0\n1\n", "two whole numbers"),
        ("0\n1\n", "lines of 1 columns"),
        ("0\t1.5\n", "two whole numbers"),
        ("0\t99999999999999999999999\n", "two whole numbers"),
    ],
)
def test_malformed_idx_names_file_and_rule(files, tmp_path, text, message):
    path = files.write(tmp_path / "train.rec")
    (tmp_path / "train.idx").write_text(text)
    with pytest.raises(ValueError, match=rf"train\.idx: .*{message}"):
        RecordReader(path)


@pytest.mark.parametrize("text", ["", "4,112", "4,112,x\n", "-4,112,112\n"])
def test_malformed_property_is_refused(files, tmp_path, text):
    path = files.write(tmp_path / "train.rec")
    (tmp_path / "property").write_text(text)
    with pytest.raises(ValueError, match=r"property: .*three whole numbers"):
        RecordReader(path)


def test_property_may_have_more_lines(files, tmp_path):
    path = files.write(tmp_path / "train.rec")
    (tmp_path / "property").write_text("4,112,112\n10\n")
    assert RecordReader(path).num_classes == 4


def test_idx_of_blank_lines_has_no_lines(files, tmp_path, recwarn):
    path = files.write(tmp_path / "train.rec")
    (tmp_path / "train.idx").write_text("\n" * 100)
    with pytest.raises(ValueError, match=r"train\.idx: no lines"):
        RecordReader(path)
    assert not recwarn.list
