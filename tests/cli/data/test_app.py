"""`arcface-plus data pack | unpack | inspect | check` and tools/pack_dataset.py."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from arcface_plus.data.images import decode_image, encode_jpeg
from arcface_plus.data.records.check import check_records
from arcface_plus.data.records.reader import RecordReader, RecordWriter


@pytest.fixture
def run(cli):
    return lambda *arguments: cli("data", *arguments)


@pytest.fixture
def faces(tmp_path):
    """Three people; the second has a PNG and a grey PGM, the last folder holds no image."""
    folder = tmp_path / "faces"
    rng = np.random.default_rng(0)
    for person, count in (("anna", 3), ("bert", 2), ("carla", 1)):
        (folder / person).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)
            (folder / person / f"{i}.jpg").write_bytes(encode_jpeg(pixels))
    cv2.imwrite(str(folder / "bert" / "2.png"), np.full((112, 112, 3), 80, np.uint8))
    cv2.imwrite(str(folder / "bert" / "3.pgm"), np.full((112, 112), 120, np.uint8))
    (folder / "nobody").mkdir()
    (folder / "nobody" / "notes.txt").write_text("no image")
    return folder


def test_pack_keeps_fitting_jpegs_and_converts_the_rest(faces, tmp_path, run):
    result = run("pack", faces, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "8 images of 3 people (6 with their own bytes, 0 left out)" in result.output
    reader = RecordReader(tmp_path / "out" / "train.rec")
    np.testing.assert_array_equal(reader.labels, [0, 0, 0, 1, 1, 1, 1, 2])
    assert reader.property == (3, 112, 112)
    assert check_records(reader, 3, decode="all") == []
    assert reader[0].data == (faces / "anna" / "0.jpg").read_bytes()
    assert (decode_image(reader[5].data, where="png") == 80).all()
    assert (decode_image(reader[6].data, where="pgm") == 120).all()
    listing = (tmp_path / "out" / "train.lst").read_text().splitlines()
    assert listing[3] == "4\t1\tbert/0.jpg"


def test_pack_reencodes_when_asked(faces, tmp_path, run):
    result = run("pack", faces, tmp_path / "a.rec", "--reencode", "--quality", 30)
    assert result.exit_code == 0, result.output
    assert "(0 with their own bytes" in result.output
    assert len(RecordReader(tmp_path / "a.rec")[0].data) < len((faces / "anna/0.jpg").read_bytes())


def test_other_sizes_are_refused_or_scaled(faces, tmp_path, run):
    (faces / "anna" / "big.jpg").write_bytes(encode_jpeg(np.full((224, 224, 3), 9, np.uint8)))
    result = run("pack", faces, tmp_path / "out")
    assert result.exit_code == 2
    assert "big.jpg: 224×224 pixels" in result.output
    assert list((tmp_path / "out").iterdir()) == []
    assert run("pack", faces, tmp_path / "out", "--resize").exit_code == 0
    assert check_records(RecordReader(tmp_path / "out"), decode="all") == []


def test_bad_images_stop_or_are_listed(faces, tmp_path, run):
    (faces / "carla" / "0.jpg").write_bytes((faces / "carla" / "0.jpg").read_bytes()[:-99])
    (faces / "dora").mkdir()
    (faces / "dora" / "0.jpg").write_bytes((faces / "anna" / "0.jpg").read_bytes())
    result = run("pack", faces, tmp_path / "out")
    assert (result.exit_code, list((tmp_path / "out").iterdir())) == (2, [])
    result = run("pack", faces, tmp_path / "out", "--on-error", "skip")
    assert result.exit_code == 0
    assert "left out: " in result.output
    assert "carla/0.jpg: the jpeg data are cut off" in result.output
    # Carla has no image left, so that Dora gets her label.
    np.testing.assert_array_equal(RecordReader(tmp_path / "out").labels, [0, 0, 0, 1, 1, 1, 1, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "missing", "out"], "missing: no such folder"),
        (["pack", "empty", "out"], "one sub-folder a person"),
        (["pack", "empty", "out", "--on-error", "hope"], "use 'stop' or 'skip'"),
        (["unpack", "missing.rec", "out"], "no such .rec file"),
        (["inspect", "missing.rec"], "no such .rec file"),
        (["check", "missing.rec"], "no such .rec file"),
    ],
)
def test_bad_input_exits_with_2_and_says_why(tmp_path, monkeypatch, arguments, message, run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_nothing_is_overwritten_unasked(faces, tmp_path, run):
    assert run("pack", faces, tmp_path / "out").exit_code == 0
    before = (tmp_path / "out" / "train.rec").read_bytes()
    result = run("pack", faces, tmp_path / "out", "--reencode")
    assert result.exit_code == 2
    assert (tmp_path / "out" / "train.rec").read_bytes() == before
    assert run("pack", faces, tmp_path / "out", "--reencode", "--overwrite").exit_code == 0
    assert (tmp_path / "out" / "train.rec").read_bytes() != before


def test_unpack_then_pack_gives_the_same_records(faces, tmp_path, run):
    run("pack", faces, tmp_path / "one")
    result = run("unpack", tmp_path / "one", tmp_path / "folder")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "folder/0/1.jpg").read_bytes() == (faces / "anna/0.jpg").read_bytes()
    assert run("unpack", tmp_path / "one", tmp_path / "folder").exit_code == 2
    assert run("pack", tmp_path / "folder", tmp_path / "two").exit_code == 0
    for name in ("train.rec", "train.idx", "property"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_inspect_shows_counts(faces, tmp_path, run):
    run("pack", faces, tmp_path / "out")
    result = run("inspect", tmp_path / "out", "--first", 2)
    assert result.exit_code == 0, result.output
    assert "insightface (header-0)" in result.output
    assert "min 1, median 3, mean 2.66667, max 4" in result.output
    facts = json.loads(run("inspect", tmp_path / "out", "--json", "--first", 2).stdout)
    assert (facts["images"], facts["people"], facts["classes"]) == (8, 3, 3)
    assert [row["key"] for row in facts["first_records"]] == [1, 2]
    assert facts["first_records"][0]["image"] == "jpeg  112×112"


def test_check_reports_and_exits_with_1(faces, tmp_path, run):
    run("pack", faces, tmp_path / "out")
    assert run("check", tmp_path / "out", "--decode", "all").exit_code == 0
    result = run("check", tmp_path / "out", "--num-classes", 2)
    assert result.exit_code == 1
    assert "record 8 at byte" in result.output
    assert "[label-range] label 2 is outside the 2 classes of the run" in result.output
    problems = json.loads(run("check", tmp_path / "out", "--num-classes", 2, "--json").stdout)
    assert {problem["rule"] for problem in problems} == {"property", "label-range"}


def test_check_of_a_folder_and_of_overlap(faces, tmp_path, run):
    result = run("check", faces, "--json")
    (problem,) = json.loads(result.stdout)
    assert result.exit_code == 1 and problem["rule"] == "empty-class"
    (faces / "nobody" / "notes.txt").unlink()
    (faces / "nobody").rmdir()
    result = run("check", faces)
    assert result.exit_code == 0
    assert "8 images of 3 people, 0 errors, 0 warnings" in result.stdout
    assert "decoding: 8 of 8" in result.stderr
    (tmp_path / "pairs.txt").write_text("anna/0.jpg bert/0.jpg 0\n")
    words = ["check", faces, "--pairs", tmp_path / "pairs.txt", "--root", faces]
    result = run(*words)
    assert result.exit_code == 1
    assert "[overlap-people]" in result.stdout and "anna, bert" in result.stdout
    assert "[overlap-images]" in result.stdout and "2 errors" not in result.stdout
    assert "4 errors, 0 warnings" in result.stdout
    assert run("check", faces, "--num-classes", 3).exit_code == 2
    assert run("check", faces, "--decode", "headers").exit_code == 2
    assert run("check", tmp_path / "gone").exit_code == 2


def test_check_calls_a_cut_file_cut(faces, tmp_path, run):
    run("pack", faces, tmp_path / "out", "--on-error", "skip")
    path = tmp_path / "out" / "train.rec"
    path.write_bytes(path.read_bytes()[:-3000])
    result = run("check", path)
    assert result.exit_code == 1
    assert "[cut] the file is cut: it ends at byte" in result.stdout
    assert "records are whole; copy the file again" in result.stdout
    assert run("inspect", path).exit_code == 2


def test_script_is_the_same_command(faces, tmp_path, repository, run):
    command = [sys.executable, repository / "tools" / "pack_dataset.py", faces, tmp_path / "out"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert run("pack", faces, tmp_path / "other").exit_code == 0
    one, two = tmp_path / "out" / "train.rec", tmp_path / "other" / "train.rec"
    assert one.read_bytes() == two.read_bytes()


def test_help_imports_neither_torch_nor_opencv(run):
    code = (
        "import sys; from arcface_plus.cli.data.app import app; "
        "app(['pack', '--help'], standalone_mode=False); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'cv2', 'sklearn', 'scipy')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


def test_subset(cli, tmp_path) -> None:
    rng = np.random.default_rng(0)
    with RecordWriter(tmp_path / "all" / "train.rec", image_size=(32, 32)) as writer:
        for label in range(9):
            for _ in range(1 + label % 3):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                writer.write(encode_jpeg(pixels), label)
    words = ["data", "subset", tmp_path / "all", tmp_path / "small.rec", "--identities", 4]
    done = cli(*words, "--min-images", 2, "--seed", 3)
    assert done.exit_code == 0, done.output
    reader = RecordReader(tmp_path / "small.rec")
    assert f"{len(reader)} images of 4 people" in done.stdout
    assert "small.classes.csv" in done.stdout
    assert reader.num_classes == 4 and np.bincount(reader.labels).min() >= 2
    assert cli("data", "check", tmp_path / "small.rec", "--num-classes", 4).exit_code == 0
    again = cli(*words)
    assert again.exit_code == 2 and "exists" in again.stderr
    few = cli(
        "data", "subset", tmp_path / "all", tmp_path / "b.rec", "--identities", 4, "--min-images", 3
    )
    assert few.exit_code == 2 and "only 3 of 9" in few.stderr
    assert not (tmp_path / "b.rec").exists()
