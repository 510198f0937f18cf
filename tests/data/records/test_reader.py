"""Reader: round trips, labels, processes, real files."""

from __future__ import annotations

import multiprocessing
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcface_plus.data.records import identities as record_identities
from arcface_plus.data.records import reader as records
from arcface_plus.data.records.check import check_records
from arcface_plus.data.records.headers import HEADER, pack_header
from arcface_plus.data.records.reader import RecordReader, RecordWriter
from arcface_plus.data.records.recordio import MAGIC_BYTES, frame_record

MAGIC_AS_FLOAT = struct.unpack("<f", MAGIC_BYTES)[0]

# -- round trips ---------------------------------------------------------------------------------


def test_insightface_layout_round_trip(files, tmp_path):
    reader = RecordReader(files.write(tmp_path / "train.rec"))
    assert len(reader) == 10
    assert reader.num_classes == 4
    assert reader.property == (4, 112, 112)
    assert list(reader.keys) == list(range(1, 11))
    np.testing.assert_array_equal(reader.labels, np.repeat(range(4), files.people))
    assert reader.labels.dtype == np.int64
    np.testing.assert_array_equal(reader.identity_ranges, [[1, 4], [4, 5], [5, 9], [9, 11]])
    assert [record.label for record in reader] == reader.labels.tolist()
    assert reader[4] == (2.0, files.jpeg(40), 5)
    assert reader[-1] == reader[9]
    assert (tmp_path / "property").read_bytes() == b"4,112,112\n"
    with pytest.raises(IndexError):
        reader[10]
    with pytest.raises(IndexError):
        reader[-11]


def test_header_zero_and_identity_records_have_insightfaces_bytes(files, tmp_path):
    reader = RecordReader(files.write(tmp_path / "train.rec"))
    assert reader.read(0) == HEADER.pack(2, 0, 0, 0) + struct.pack("<2f", 11, 15)
    assert reader.read(12) == HEADER.pack(2, 0, 12, 0) + struct.pack("<2f", 4, 5)
    with pytest.raises(ValueError, match="key 15 is not listed"):
        reader.read(15)


labels = st.one_of(
    st.integers(0, 1000).map(float),
    st.just(MAGIC_AS_FLOAT),
    st.lists(st.sampled_from([0.0, 1.0, -2.5, MAGIC_AS_FLOAT]), min_size=1, max_size=4),
)
data = st.lists(st.one_of(st.just(MAGIC_BYTES), st.binary(max_size=7)), max_size=6).map(b"".join)


@settings(max_examples=60)
@given(st.lists(st.tuples(data, labels, st.booleans()), min_size=1, max_size=12))
def test_plain_round_trip_with_magic_words_anywhere(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("plain") / "x.rec"
    magic = struct.unpack("<I", MAGIC_BYTES)[0]
    # Two labels and hardly any data at key 0 would be a header-0.
    entries = [(b"an image, longer than a header", 0.0, False), *entries]
    with RecordWriter(path, layout="plain") as writer:
        for body, label, cut_id in entries:
            writer.write(body, np.array(label), record_id=magic if cut_id else None)
    with RecordReader(path) as reader:
        table = reader.headers()
        assert len(reader) == len(entries)
        for i, (record, (body, label, _)) in enumerate(zip(reader, entries, strict=True)):
            assert (record.data, record.key) == (body, i)
            np.testing.assert_array_equal(np.float32(record.label), np.float32(label))
            assert table.fault[i] == 0
            assert table.label[i] == np.float32(np.ravel(label)[0])


def test_array_labels_use_their_first_entry_as_class(files, tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        writer.write(files.jpeg(1), np.array([0, 7.5]))
        writer.write(files.jpeg(2), np.array([1, 8.5]))
    reader = RecordReader(tmp_path / "a.rec")
    np.testing.assert_array_equal(reader[1].label, np.float32([1, 8.5]))
    np.testing.assert_array_equal(reader.labels, [0, 1])
    assert check_records(reader, decode="all") == []


def test_first_image_with_two_labels_is_not_taken_for_header_zero(files, tmp_path):
    """Shuffled files put an image of a two-number label at key 0."""
    path = files.write_frames(
        tmp_path,
        [pack_header(np.array([5, 9]), 0) + files.jpeg(1), pack_header(2, 1) + files.jpeg(2)],
        [0, 1],
    )
    reader = RecordReader(path)
    assert reader.identity_ranges is None
    np.testing.assert_array_equal(reader.labels, [5, 2])


# -- processes -----------------------------------------------------------------------------------


def _read_all(reader):
    return [record.data for record in reader]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_the_same(files, tmp_path, method):
    reader = RecordReader(files.write(tmp_path / "train.rec"))
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        for result in pool.map(_read_all, [reader] * 4):
            assert result == _read_all(reader)


def test_threads_share_one_reader(files, tmp_path):
    reader = RecordReader(files.write(tmp_path / "train.rec"))
    expected = _read_all(reader)
    with ThreadPoolExecutor(8) as pool:
        assert all(result == expected for result in pool.map(_read_all, [reader] * 50))


def test_pickle_keeps_the_index_and_notices_a_changed_file(files, tmp_path):
    reader = RecordReader(files.write(tmp_path / "train.rec"))
    frozen = pickle.dumps(reader)
    (tmp_path / "train.idx").unlink()
    assert list(pickle.loads(frozen)) == list(reader)
    files.write(tmp_path / "train.rec", [1], overwrite=True)
    with pytest.raises(ValueError, match="open the file anew"):
        pickle.loads(frozen)


def test_closed_reader_raises(files, tmp_path):
    with RecordReader(files.write(tmp_path / "train.rec")) as reader:
        assert len(reader[0].data) > 0
        assert len(reader.labels) == 10
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader[0]


# -- labels --------------------------------------------------------------------------------------


def test_labels_come_from_the_images_not_from_the_order_of_people(files, tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        for label in (2, 2, 0, 1):
            writer.write(files.jpeg(label), label)
    np.testing.assert_array_equal(RecordReader(tmp_path / "a.rec").labels, [2, 2, 0, 1])


def test_contradicting_ranges_fall_back_to_headers(files, tmp_path):
    images = [pack_header(label, key) + files.jpeg(label) for key, label in enumerate([0, 1, 1], 1)]
    ranges = [pack_header(np.array(pair), 0) for pair in ([4, 6], [1, 3], [3, 4])]
    path = files.write_frames(tmp_path, [ranges[0], *images, *ranges[1:]], range(6))
    np.testing.assert_array_equal(RecordReader(path).labels, [0, 1, 1])
    assert files.broken_rules(path) == {"range-label"}


@pytest.mark.parametrize("label", [float("nan"), float("inf"), -1.0, 0.5, 3e38, float(1 << 24)])
def test_impossible_labels_are_named(files, tmp_path, label):
    images = [pack_header(value, 0) + files.jpeg(1) for value in (0, label, 1)]
    path = files.write_frames(tmp_path, images, range(3))
    with pytest.raises(ValueError, match=r"record 1 at byte \d+: label .* is not a whole"):
        _ = RecordReader(path).labels
    assert files.broken_rules(path) == {"label"}
    with pytest.raises(ValueError, match=r"record 1 at byte \d+: \[label\].*pack the data set"):
        check_records(RecordReader(path))


def test_rounded_header_zero_is_settled_from_the_records(files, tmp_path, monkeypatch):
    """Beyond 2^24 float32 rounds the stored numbers; a lowered limit stands for such a file."""
    path = files.write(tmp_path / "train.rec")
    good = path.read_bytes()
    for first, last in ((10, 14), (12, 16), (11, 15)):
        path.write_bytes(frame_record(pack_header(np.array([first, last]), 0)) + good[40:])
        if first != 11:
            with pytest.raises(ValueError, match="record 0 at byte 0"):
                RecordReader(path)
        with monkeypatch.context() as patch:
            patch.setattr(record_identities, "FLOAT32_EXACT", 8)
            patch.setattr(records, "FLOAT32_EXACT", 8)
            reader = RecordReader(path)
            assert len(reader) == 10
            np.testing.assert_array_equal(reader.identity_ranges, [[1, 4], [4, 5], [5, 9], [9, 11]])
            np.testing.assert_array_equal(reader.labels, np.repeat(range(4), files.people))


# -- speed ---------------------------------------------------------------------------------------


def test_headers_are_read_without_a_loop_over_records(files, tmp_path, monkeypatch):
    """Labels and checks of plain records must not read records one by one."""
    path = files.write(tmp_path / "train.rec", [20] * 20)

    def refuse(*_):
        raise AssertionError("a record was read alone")

    reader = RecordReader(path)
    monkeypatch.setattr(records, "read_record", refuse)
    monkeypatch.setattr(RecordReader, "__getitem__", refuse)
    assert len(reader.labels) == 400
    assert check_records(reader) == []


# -- real files ----------------------------------------------------------------------------------


def test_file_written_by_mxnet(shared_data, tmp_path):
    source = shared_data / "mxnet_rec"
    reader = RecordReader(source / "train.rec")
    assert (len(reader), reader.num_classes) == (593, 120)
    assert reader.identity_ranges.shape == (120, 2)
    assert [record.label for record in reader] == reader.labels.tolist()
    (copy,) = check_records(reader, 120, decode="all")  # one photograph is there twice
    assert (copy.rule, copy.severity, reader[427].data) == ("copy", "warning", reader[426].data)
    with RecordWriter(tmp_path / "train.rec") as writer:
        for record in reader:
            writer.write(record.data, record.label)
    for name in ("train.rec", "train.idx", "property"):
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes()


def test_file_without_header_zero(shared_data, tmp_path):
    source = shared_data / "insightface_files"
    reader = RecordReader(source / "train.rec")
    listing = [line.split("\t") for line in (source / "train.lst").read_text().splitlines()]
    assert [record.key for record in reader] == [int(fields[0]) for fields in listing]
    np.testing.assert_array_equal(reader.labels, [int(fields[1]) for fields in listing])
    assert reader.num_classes == 2
    assert check_records(reader, 2, decode="all") == []
    for record in reader:
        pixels = cv2.imdecode(np.frombuffer(record.data, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (112, 112, 3)
    with RecordWriter(tmp_path / "train.rec", layout="plain", image_size=None) as writer:
        for record in reader:
            writer.write(record.data, record.label, key=record.key)
    for name in ("train.rec", "train.idx"):
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes()
