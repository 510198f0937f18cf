from __future__ import annotations

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcface_plus.data.faces.outcomes import (
    COLUMNS,
    Outcome,
    Status,
    numbers_of,
    read_outcomes,
    write_outcomes,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=30)
@given(st.lists(NAMES, unique=True, max_size=4), NAMES)
def test_rows_come_back(tmp_path_factory, names, note):
    path = tmp_path_factory.mktemp("table") / "alignment.csv"
    rows = [Outcome(name, Status.NONE, bytes=7, note=note) for name in sorted(names)]
    write_outcomes(path, reversed(rows))
    assert read_outcomes(path) == rows


def test_file_names_that_are_no_unicode(tmp_path):
    row = Outcome(b"P/\xff.jpg".decode(errors="surrogateescape"), Status.UNREADABLE)
    write_outcomes(tmp_path / "t.csv", [row])
    assert b"P/\xff.jpg" in (tmp_path / "t.csv").read_bytes()
    assert read_outcomes(tmp_path / "t.csv") == [row]


def test_columns_hold_the_face(tmp_path, new_face):
    face = new_face(10.25, 20, 50)
    row = Outcome("P/a.jpg", Status.ALIGNED, "P/a.jpg", 9, 2, numbers_of(face))
    write_outcomes(tmp_path / "t.csv", [row])
    with (tmp_path / "t.csv").open(newline="") as file:
        (read,) = csv.DictReader(file)
    assert (read["photograph"], read["status"], read["faces"]) == ("P/a.jpg", "aligned", "2")
    assert float(read["size"]) == 50 and float(read["x1"]) == 10.25 and float(read["y2"]) == 70
    assert float(read["nose_x"]) == pytest.approx(face.landmarks[2, 0], abs=0.006)
    assert float(read["right_mouth_y"]) == pytest.approx(face.landmarks[4, 1], abs=0.006)
    assert read_outcomes(tmp_path / "t.csv")[0].box == (10.25, 20, 60.25, 70)


def test_a_cut_last_row_is_left_out(tmp_path, new_face):
    rows = [
        Outcome(f"P/{i}.jpg", Status.ALIGNED, f"P/{i}.jpg", 9, 1, numbers_of(new_face(1, 2, 50)))
        for i in range(2)
    ]
    write_outcomes(tmp_path / "t.csv", rows)
    whole = (tmp_path / "t.csv").read_bytes()
    first = whole.rindex(b"\n", 0, -1) + 1
    for length in range(first, len(whole)):
        (tmp_path / "t.csv").write_bytes(whole[:length])
        assert read_outcomes(tmp_path / "t.csv") == rows[:1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no table of alignment"),
        ("name,score\na,1\n", "no table of alignment"),
        (",".join(COLUMNS) + "\na,gone,,1,0" + "," * 17 + "\n", "gone"),
        (",".join(COLUMNS) + "\na,aligned,,x,0" + "," * 17 + "\n", "x"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"t\.csv.*{words}"):
        read_outcomes(tmp_path / "t.csv")
