"""Subsets of identities: chosen by the seed, bytes unchanged, labels counted anew."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from arcface_plus.data.records.check import check_records
from arcface_plus.data.records.reader import RecordReader, RecordWriter
from arcface_plus.data.records.subset import choose_identities, cut_subset

COUNTS = (3, 1, 4, 2, 5, 2)


def rows(path: Path) -> list[dict[str, int]]:
    with path.open(encoding="utf-8") as file:
        return [{k: int(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("layout", ["insightface", "plain"])
def test_images_keep_their_bytes_and_the_mapping_their_labels(files, tmp_path, layout) -> None:
    source = files.write(tmp_path / "all" / "train.rec", COUNTS, layout=layout)
    with RecordReader(source) as reader:
        summary = cut_subset(reader, tmp_path / "cut", 3, seed=4)
        cut = RecordReader(summary.path)
        mapped = rows(summary.mapping)
        assert [row["label"] for row in mapped] == [0, 1, 2]
        assert sum(row["images"] for row in mapped) == summary.images == len(cut)
        for row in mapped:
            old = np.flatnonzero(reader.labels == row["source_label"])
            new = np.flatnonzero(cut.labels == row["label"])
            assert len(old) == len(new) == row["images"] == COUNTS[row["source_label"]]
            for a, b in zip(old, new, strict=True):
                assert reader[int(a)].data == cut[int(b)].data
    assert cut.property == (3, 112, 112)
    assert check_records(cut, 3, decode="all") == []


def test_people_whose_images_are_scattered_come_together(files, tmp_path) -> None:
    with RecordWriter(tmp_path / "m" / "mixed.rec", layout="plain", image_size=None) as writer:
        for number in range(12):
            label = np.array([number % 4, 7.5, number], dtype=np.float32)
            writer.write(files.jpeg(number, 40), label)
    with RecordReader(tmp_path / "m" / "mixed.rec") as reader:
        summary = cut_subset(reader, tmp_path / "cut.rec", 4)
        cut = RecordReader(summary.path)
        assert cut.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert [r.label.tolist() for r in cut][3:5] == [[1, 7.5, 1], [1, 7.5, 5]]
        assert cut[4].data == reader[5].data
    assert cut.property == (4, 40, 40), "measured, where no property says it"


def test_identities_depend_on_the_seed_and_have_enough_images() -> None:
    labels = np.repeat(np.arange(50), np.arange(50) % 5 + 1)
    first = choose_identities(labels, 20, seed=1, min_images=2)
    assert first.tolist() == choose_identities(labels, 20, seed=1, min_images=2).tolist()
    assert first.tolist() != choose_identities(labels, 20, seed=2, min_images=2).tolist()
    assert len(set(first.tolist())) == 20 and (np.diff(first) > 0).all()
    assert (first % 5 + 1 >= 2).all()
    with pytest.raises(ValueError, match="only 10 of 50 have at least 5"):
        choose_identities(labels, 11, min_images=5)
    with pytest.raises(ValueError, match="must be at least 1"):
        choose_identities(labels, 0)


def test_nothing_is_overwritten_unasked(files, tmp_path) -> None:
    source = files.write(tmp_path / "all" / "all.rec", COUNTS)
    with RecordReader(source) as reader:
        for own in (source, source.with_name("other.rec")):
            with pytest.raises(ValueError, match="choose another folder"):
                cut_subset(reader, own, 2, overwrite=True)
        (tmp_path / "cut").mkdir()
        cut_subset(reader, tmp_path / "cut", 2)
        before = (tmp_path / "cut" / "train.rec").read_bytes()
        with pytest.raises(ValueError, match=r"classes\.csv exists"):
            cut_subset(reader, tmp_path / "cut", 3)
        (tmp_path / "cut" / "train.classes.csv").unlink()
        with pytest.raises(ValueError, match=r"train\.rec exist"):
            cut_subset(reader, tmp_path / "cut", 3)
        assert (tmp_path / "cut" / "train.rec").read_bytes() == before
        assert cut_subset(reader, tmp_path / "cut", 3, overwrite=True).identities == 3
