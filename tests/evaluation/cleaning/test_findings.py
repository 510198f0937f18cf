from __future__ import annotations

import pytest

from arcface_plus.evaluation.cleaning.findings import (
    Finding,
    lines_of,
    new_name,
    read_lines,
    write_lines,
)

KEYS = ["ann/1.jpg", "ann/2,3.jpg", 'bob/"x".jpg', "bob/\u00e9.jpg", "bob/\udcff.jpg"]
PEOPLE = ["ann", "bob", "bob_2"]
FINDINGS = [
    Finding("duplicates", 0.98765432, (1,), 0, kept=0),
    Finding("labels", 0.9, (2,), 1, 0),
    Finding("split", 0.7, (3, 4), 1),
]


def test_lines_say_who_goes_where() -> None:
    lines = lines_of(FINDINGS, KEYS, PEOPLE)
    assert [(line.finding, line.kind, line.photograph) for line in lines] == [
        (1, "duplicates", KEYS[1]),
        (2, "labels", KEYS[2]),
        (3, "split", KEYS[3]),
        (3, "split", KEYS[4]),
    ]
    assert lines[0].other_photograph == "ann/1.jpg" and lines[0].score == 0.9877
    assert [line.other_person for line in lines] == ["", "ann", "bob_3", "bob_3"]
    assert all("move" in line.proposal for line in lines)


def test_lines_survive_the_file_whatever_the_names(tmp_path) -> None:
    lines = lines_of(FINDINGS, KEYS, PEOPLE)
    write_lines(tmp_path / "clean.csv", lines)
    assert read_lines(tmp_path / "clean.csv") == lines
    kept = (tmp_path / "clean.csv").read_bytes().splitlines(keepends=True)
    (tmp_path / "clean.csv").write_bytes(b"\xef\xbb\xbf" + kept[0] + kept[2])  # as Excel saves it
    assert read_lines(tmp_path / "clean.csv") == [lines[1]]


HEADER = "finding,kind,score,photograph,person,other_person,other_photograph,proposal\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        (HEADER.replace(",", ";"), "Keep commas"),
        (HEADER + "1,labels,0.5,a/1.jpg,a\n", "line 2"),
        (HEADER + "1,beauty,0.5,a/1.jpg,a,b,,\n", "beauty"),
        (HEADER + "one,labels,0.5,a/1.jpg,a,b,,\n", "line 2"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path, text, words) -> None:
    (tmp_path / "clean.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_lines(tmp_path / "clean.csv")


def test_new_names_are_nobody_s() -> None:
    assert new_name("ann", PEOPLE) == "ann_2"
    assert new_name("bob", PEOPLE) == "bob_3"
