from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.data.ijb_meta import (
    meta_file,
    read_faces,
    read_integers,
    read_subjects,
    read_template_pairs,
)

POINTS = "46.060 62.026 87.785 60.323 68.851 77.656 52.162 99.875 86.450 98.648"


@pytest.fixture
def meta(tmp_path):
    (tmp_path / "ijbc_face_tid_mid.txt").write_text("1.jpg 1 69544\n2.jpg 1 69544\n3.jpg 7 5\n")
    (tmp_path / "ijbc_name_5pts_score.txt").write_text(
        f"1.jpg {POINTS} 0.999\n2.jpg {POINTS} 0.5\n3.jpg {POINTS} 0.1\n"
    )
    (tmp_path / "ijbc_template_pair_label.txt").write_text("1 7 0\n7 7 1\n")
    return tmp_path


def test_lists_as_published(meta):
    faces = read_faces(meta, "IJBC")
    assert faces.names == ["1.jpg", "2.jpg", "3.jpg"] and len(faces) == 3
    assert faces.templates.tolist() == [1, 1, 7] and faces.media.tolist() == [69544, 69544, 5]
    assert faces.landmarks.shape == (3, 5, 2)
    assert faces.landmarks[0, 1].tolist() == [87.785, 60.323]
    assert faces.detector_scores.tolist() == [0.999, 0.5, 0.1]
    pairs = read_template_pairs(meta, "IJBC", np.array([1, 7]))
    assert pairs.rows_a.tolist() == [0, 1] and pairs.rows_b.tolist() == [1, 1]
    assert pairs.is_same.tolist() == [False, True] and len(pairs) == 2
    assert pairs.rows_a.dtype == np.int32


@pytest.mark.parametrize(
    ("name", "old", "new", "match"),
    [
        ("face_tid_mid", "2.jpg 1 69544", "2.jpg 1", r"line 2: 3 words"),
        ("face_tid_mid", "3.jpg 7 5", "3.jpg x 5", r"line 3: 'x' is no whole"),
        ("face_tid_mid", "3.jpg 7 5", "3.jpg 7 5.0", r"line 3: '5.0' is no whole"),
        ("face_tid_mid", "2.jpg", "1.jpg", "line 2 names the image 2.jpg"),
        ("face_tid_mid", "3.jpg 7 5\n", "", "lists 2 images and .* 3"),
        ("name_5pts_score", "0.5", "nan", "line 2: 'nan' is no finite"),
        ("name_5pts_score", "0.5", "-0.5", "line 2: the detector's score is -0.5"),
        ("name_5pts_score", "0.5", "0.5 9", "line 2: 12 words"),
        ("name_5pts_score", "3.jpg", "4.jpg", "line 3 names the image 4.jpg"),
        ("name_5pts_score", f"3.jpg {POINTS} 0.1\n", "", "3 images and .* 2"),
        ("template_pair_label", "7 7 1", "7 7 2", "line 2: the label is 2"),
        ("template_pair_label", "1 7 0", "1 8 0", "line 1: template 8 has no image"),
        ("template_pair_label", "1 7 0", "0 7 0", "line 1: template 0 has no image"),
        ("template_pair_label", "1 7 0\n7 7 1\n", "", "holds no pairs"),
    ],
)
def test_records_that_do_not_fit(meta, name, old, new, match):
    path = meta / f"ijbc_{name}.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=match):
        faces = read_faces(meta, "IJBC")
        read_template_pairs(meta, "IJBC", np.unique(faces.templates))


def test_one_image_twice(meta):
    for name in ("face_tid_mid", "name_5pts_score"):
        path = meta / f"ijbc_{name}.txt"
        path.write_text(path.read_text().replace("3.jpg", "1.jpg"))
    with pytest.raises(ValueError, match=r"lists the image 1\.jpg more than once"):
        read_faces(meta, "IJBC")


def test_missing_sets(meta):
    with pytest.raises(FileNotFoundError, match=r"must hold ijbb_face_tid_mid\.txt"):
        read_faces(meta, "IJBB")
    with pytest.raises(ValueError, match="must be one of IJBB, IJBC"):
        meta_file(meta, "IJBA", "x")


def test_gallery_with_an_image_a_line(tmp_path):
    path = tmp_path / "g.csv"
    path.write_text(
        "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID\n"
        '9,3,"img/1,2.jpg",1\n2,5,img/2.png,2\n9,3,img/3.jpg,4\n'
    )
    subjects = read_subjects(path)
    assert subjects.templates.tolist() == [2, 9] and subjects.subjects.tolist() == [5, 3]
    with pytest.raises(ValueError, match="1 of its 2 templates have no image, such as 9"):
        read_subjects(path, np.array([2, 4]))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "first line must begin"),
        ("1,2\n", "first line must begin"),
        ("TEMPLATE_ID,SUBJECT_ID\n", "lists no template"),
        ("TEMPLATE_ID,SUBJECT_ID\n1\n", "line 2: a template and a subject"),
        ("TEMPLATE_ID,SUBJECT_ID\n1,a\n", "line 2: 'a' is no whole"),
        ("TEMPLATE_ID,SUBJECT_ID\n1,2\n1,3\n", "line 3: template 1 is of subject 3, but of 2"),
    ],
)
def test_galleries_that_do_not_fit(tmp_path, text, match):
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(ValueError, match=match):
        read_subjects(tmp_path / "g.csv")
    with pytest.raises(FileNotFoundError):
        read_subjects(tmp_path / "none.csv")


@pytest.mark.parametrize("between", [" ", "\t", "  ", " \t "])
@pytest.mark.parametrize("newline", ["\n", "\r\n", " \n", "\n\n"])
def test_integers_in_every_spelling(tmp_path, between, newline):
    table = np.random.default_rng(0).integers(-5, 10**6, (500, 3))
    path = tmp_path / "t.txt"
    path.write_bytes(newline.join(between.join(map(str, row)) for row in table.tolist()).encode())
    np.testing.assert_array_equal(read_integers(path, 3), table)


@pytest.mark.parametrize(
    "line",
    ["1 2", "1 2 3 4", "1 2 x", "1 2 1.5", "1 2 1e3", "1,2,3", "1 2 --3", "1 2 1_0",
     "1 2 99999999999999999999", "1 2 \x00", "1 2 ٣", "1 2 -"],
)  # fmt: skip
def test_malformed_integers_are_named(tmp_path, line):
    path = tmp_path / "t.txt"
    path.write_text(f"1 2 3\n4 5 6\n{line}\n7 8 9\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"t\.txt, line 3: "):
        read_integers(path, 3)
    path.write_text("1 2\n3 4 5 6\n")
    with pytest.raises(ValueError, match="line 1: 3 words are expected"):
        read_integers(path, 3)


def test_no_integers_at_all(tmp_path):
    (tmp_path / "empty").write_text("\n \n")
    assert read_integers(tmp_path / "empty", 3).shape == (0, 3)
    with pytest.raises(FileNotFoundError, match="none"):
        read_integers(tmp_path / "none", 3)
