from __future__ import annotations

import pytest

from arcface_plus.data.pairs.lists import ListedImage, locate_images, read_pair_list


def listed(tmp_path, text: str):
    (tmp_path / "pairs.txt").write_text(text, encoding="utf-8")
    return read_pair_list(tmp_path / "pairs.txt")


def test_view_2(tmp_path):
    pairs = listed(tmp_path, "1 2\nAnn 1 2\nAnn 2 3\nAnn 1 Bo 1\nBo 1 Cy 12\n")
    assert pairs.folds == 1 and pairs.is_same.tolist() == [True, True, False, False]
    stems = ["Ann_0001", "Ann_0002", "Ann_0003", "Bo_0001", "Cy_0012"]
    assert [image.stem for image in pairs.images] == stems
    assert pairs.index_a.tolist() == [0, 1, 0, 3] and pairs.index_b.tolist() == [1, 2, 3, 4]
    assert pairs.names == ["Ann", "Ann", "Ann", "Bo", "Cy"]


def test_view_1_and_no_header_state_no_folds(tmp_path):
    assert listed(tmp_path, "1\nAnn\t1\t2\n\nAnn\t1\tBo\t1\n").folds is None
    pairs = listed(tmp_path, "\nAnn 1 Bo 1\r\nAnn 1 2\r\n")
    assert pairs.folds is None and pairs.is_same.tolist() == [False, True]


def test_names_with_blanks_between_tabs(tmp_path):
    pairs = listed(tmp_path, "Ann Lee\t1\t2\nAnn Lee\t1\tÉva\t1\n")
    assert pairs.names == ["Ann Lee", "Ann Lee", "Éva"]


def test_numbers_as_people(tmp_path):
    # A person called 7 with photographs 1 and 0: the LFW form, since a path is not a bare number.
    assert listed(tmp_path, "7 1 0\n").images == [ListedImage("7", 1), ListedImage("7", 0)]


def test_paths(tmp_path):
    pairs = listed(tmp_path, "a/x.jpg b/y.png 0\na/x.jpg a/z.jpg 1\n")
    assert [image.stem for image in pairs.images] == ["a/x.jpg", "b/y.png", "a/z.jpg"]
    assert pairs.names is None and pairs.is_same.tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no pairs"),
        ("10 300\n", "no pairs"),
        ("1 1\nAnn 1 2\n", r"header says 1 x \(1 \+ 1\) = 2 pairs, but there are 1"),
        ("0 0\nAnn 1 2\n", "header says"),
        ("2 1\nAnn 1 2\nAnn 2 3\nAnn 1 Bo 1\nBo 1 Cy 1\n", "fold 1 has 2"),
        ("1 1\nAnn 1 2\nAnn 1\n", "line 3: 'Ann 1' is not 'NAME i j'"),
        ("Ann 1 2\nAnn one 2\n", "line 2"),
        ("Ann 1 2\nAnn 1 -2\n", "line 2"),
        ("a.jpg b.jpg 1\na.jpg b.jpg 2\n", "line 2: .* is not 'path path 0'"),
        ("a.jpg b.jpg 1\na.jpg b c.jpg 1\n", "line 2"),
        ("a.jpg,b.jpg,1\n", "line 1"),
    ],
)
def test_other_forms_are_refused(tmp_path, text, match):
    with pytest.raises(ValueError, match=match) as caught:
        listed(tmp_path, text)
    assert "pairs.txt" in str(caught.value)


def test_binary_is_refused(tmp_path):
    (tmp_path / "pairs.txt").write_bytes(b"\x80\x02]q\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8 text"):
        read_pair_list(tmp_path / "pairs.txt")


def find(root, *images: ListedImage) -> list[str]:
    return locate_images(images, root, source=root / "pairs.txt")


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".pgm", ".bmp", ".JPG"])
def test_names_and_suffixes(tmp_path, suffix):
    for name in ("Ann/Ann_0001", "s1/1", "s1/10", "Bo/0012"):
        touch(tmp_path / f"{name}{suffix}")
    wanted = [ListedImage("Ann", 1), ListedImage("s1", 10), ListedImage("Bo", 12)]
    wanted.append(ListedImage("s1", 1))
    expected = [f"{name}{suffix}" for name in ("Ann/Ann_0001", "s1/10", "Bo/0012", "s1/1")]
    assert find(tmp_path, *wanted) == expected


def test_full_names_win_over_digits(tmp_path):
    touch(tmp_path / "Ann" / "Ann_0001.jpg")
    touch(tmp_path / "Ann" / "1.jpg")
    assert find(tmp_path, ListedImage("Ann", 1)) == ["Ann/Ann_0001.jpg"]


def test_two_candidates_are_refused(tmp_path):
    touch(tmp_path / "Ann" / "Ann_0001.jpg")
    touch(tmp_path / "Ann" / "Ann_0001.png")
    with pytest.raises(ValueError, match=r"Ann_0001\.jpg or Ann/Ann_0001.png"):
        find(tmp_path, ListedImage("Ann", 1))


def test_missing_images_are_named_and_counted(tmp_path):
    touch(tmp_path / "Ann" / "Ann_0001.txt")
    wanted = [ListedImage("Ann", i) for i in range(1, 9)]
    with pytest.raises(ValueError, match=r"8 of the 8 .*: Ann_0001, .*Ann_0005, ….*--root"):
        find(tmp_path, *wanted)
    with pytest.raises(ValueError, match=r"1 of the 1 .*: x/y.jpg\. Give"):
        find(tmp_path, ListedImage("x/y.jpg", None))
    with pytest.raises(FileNotFoundError, match="not a folder"):
        find(tmp_path / "none", *wanted)


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd"])
def test_paths_stay_inside(tmp_path, name):
    touch(tmp_path / "secret.jpg")
    (tmp_path / "root" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match="leads out of the image folder"):
        find(tmp_path / "root", ListedImage(name, None))


def test_absolute_paths_inside_will_do(tmp_path):
    touch(tmp_path / "a.jpg")
    inside = str(tmp_path / "a.jpg")
    assert find(tmp_path, ListedImage(inside, None)) == [inside]
