"""A folder of photographs with real faces, aligned, stopped, continued and changed."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcface_plus.data.faces import photograph
from arcface_plus.data.faces.crops import align_image
from arcface_plus.data.faces.detectors import open_detector
from arcface_plus.data.faces.folder import align_folder, find_photographs, name_crops
from arcface_plus.data.faces.outcomes import Outcome, Status, read_outcomes
from arcface_plus.data.folder import ImageFolder
from arcface_plus.data.images import encode_jpeg, read_image


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def looked_at(monkeypatch) -> list[str]:
    """The photographs that are looked at, as they are."""
    seen: list[str] = []
    run = photograph.Job.run
    monkeypatch.setattr(photograph.Job, "run", lambda job, *w: seen.append(w[0]) or run(job, *w))
    return seen


def test_a_folder_becomes_crops_that_train(people, tmp_path):
    counts: list[tuple[int, int]] = []
    done = align_folder(
        people, tmp_path / "out", on_progress=lambda done, total: counts.append((done, total))
    )
    assert done.counts == {Status.ALIGNED: 9} and done.before == 0
    assert counts == [(i, 9) for i in range(1, 10)]
    crops = ImageFolder(tmp_path / "out")
    assert crops.class_names == ["person 1", "person 2", "person 3"] and len(crops) == 9
    assert {crops[i].shape for i in range(9)} == {(112, 112, 3)}
    detector = open_detector()
    for row in read_outcomes(tmp_path / "out" / "alignment.csv"):
        expected = align_image(people / row.photograph, detector)
        crop = read_image(tmp_path / "out" / row.crop)
        assert np.abs(crop.astype(int) - expected.crop).mean() < 3  # JPEG
        np.testing.assert_allclose(row.box, expected.face.box, atol=0.006)
    assert (tmp_path / "out" / "failures.txt").read_text() == ""


def test_processes_write_the_same_files(people, tmp_path):
    align_folder(people, tmp_path / "one", size=64, image_format="png")
    for number in (4, 5, 6):
        shutil.copy(people / "person 1" / "1.jpg", people / "person 1" / f"{number}.jpg")
    align_folder(people, tmp_path / "one", size=64, image_format="png")  # the new ones alone
    align_folder(people, tmp_path / "two", size=64, image_format="png", workers=2)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys() and len(one) == 12 + 4
    differing = [name for name in one if one[name] != two[name]]
    assert differing == ["alignment.html"]  # its title is the folder's name
    assert read_image(tmp_path / "two" / "person 1" / "1.png").shape == (64, 64, 3)


def test_nothing_is_done_twice(people, tmp_path, looked_at):
    (people / "person 1" / "text.jpg").write_text("hello")
    out = tmp_path / "out"
    align_folder(people, out)
    assert len(looked_at) == 10
    before = contents(out)
    done = align_folder(people, out)
    assert len(looked_at) == 10 and done.before == 10 and contents(out) == before

    (out / "person 2" / "2.jpg").unlink()  # a crop that was put aside
    shutil.copy(people / "person 1" / "1.jpg", people / "person 1" / "text.jpg")  # a replaced file
    shutil.copy(people / "person 3" / "1.jpg", people / "person 3" / "4.jpg")  # a new one
    done = align_folder(people, out)
    assert looked_at[10:] == ["person 1/text.jpg", "person 3/4.jpg"]
    assert done.counts == {Status.ALIGNED: 11} and done.before == 9
    assert not (out / "person 2" / "2.jpg").exists(), "it stays aside"
    assert '"person 2/2.jpg"' not in (out / "alignment.html").read_text()


def test_other_settings_are_refused_and_overwriting_starts_over(
    people, tmp_path, looked_at, scrfd_file
):
    out = tmp_path / "out"
    align_folder(people, out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"other settings \(size 112, now 96\).*--overwrite"):
        align_folder(people, out, size=96)
    with pytest.raises(ValueError, match=r"detector 'mtcnn', now 'scrfd [0-9a-f]+'"):
        align_folder(people, out, scrfd_file(64))
    assert len(looked_at) == 9
    align_folder(people, out, size=96, min_face=30, overwrite=True)
    assert len(looked_at) == 18 and (out / "notes.txt").read_text() == "mine"
    assert read_image(out / "person 1" / "1.jpg").shape == (96, 96, 3)


@pytest.mark.slow
def test_killed_and_continued(people, tmp_path):
    for number in range(4, 40):
        shutil.copy(people / "person 1" / "1.jpg", people / "person 1" / f"{number:02d}.jpg")
    align_folder(people, tmp_path / "whole" / "out")
    out = tmp_path / "killed" / "out"
    words = [sys.executable, "-m", "arcface_plus", "data", "align", str(people), str(out)]
    process = subprocess.Popen([*words, "--workers", "2"], start_new_session=True)
    table = out / "alignment.csv"
    while process.poll() is None and not (table.exists() and table.read_bytes().count(b"\n") > 8):
        time.sleep(0.02)
    process.kill()
    process.wait()
    done = table.read_bytes().count(b"\n") - 1
    assert 8 <= done < 45 and not (out / "alignment.html").exists()
    wait_for_the_end_of(process.pid)
    with table.open("a") as file:
        file.write("person 3/3.jpg,aligned,person")  # as if killed while writing
    align_folder(people, out)
    left = {name for name in contents(out) if name.endswith(".tmp")}  # killed beside a crop
    assert {k: v for k, v in contents(out).items() if k not in left} == contents(
        tmp_path / "whole" / "out"
    )


def wait_for_the_end_of(group: int) -> None:
    """Wait until no process of a session is left: workers leave with their parent."""
    for _ in range(500):
        states = [
            path.read_text().rpartition(")")[2].split()
            for path in Path("/proc").glob("[0-9]*/stat")
            if path.exists()
        ]
        if not any(int(fields[3]) == group and fields[0] != "Z" for fields in states):
            return
        time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("workers outlived their parent")


def with_exif_orientation(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def test_exif_rotation_is_honoured(people, tmp_path):
    upright = read_image(people / "person 2" / "1.jpg")
    lying = encode_jpeg(np.rot90(upright).copy())  # counter-clockwise; 6 turns it back
    (people / "person 2" / "lying.jpg").write_bytes(with_exif_orientation(lying, 6))
    rows = {row.photograph: row for row in align_folder(people, tmp_path / "out").outcomes}
    first, turned = rows["person 2/1.jpg"], rows["person 2/lying.jpg"]
    assert turned.status == Status.ALIGNED
    np.testing.assert_allclose(turned.box, first.box, atol=4)


def test_every_failure_has_its_status_and_reason(people, tmp_path, orl):
    folder = people / "person 1"
    face = cv2.resize(orl(5, 1), (40, 49), interpolation=cv2.INTER_AREA)
    small, two = np.full((120, 120, 3), 90, np.uint8), np.full((200, 300, 3), 90, np.uint8)
    small[30:79, 30:70] = face
    two[40:152, 20:112], two[60:172, 180:272] = orl(6, 1), orl(7, 1)
    grey = np.full((200, 200, 3), 128, np.uint8)
    images = {"tiny.jpg": small, "two.jpg": two, "grey.jpg": grey, "dot.jpg": grey[:3, :3]}
    for name, image in images.items():
        (folder / name).write_bytes(encode_jpeg(image))
    (folder / "text.jpg").write_text("hello")
    (folder / "empty.png").write_bytes(b"")
    (folder / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "cut.jpg").write_bytes((folder / "1.jpg").read_bytes()[:1500])
    png = bytearray(cv2.imencode(".png", grey)[1].tobytes())
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    (folder / "huge.png").write_bytes(png)
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")  # no file, so no photograph
    (folder / ".hidden.jpg").write_text("x")
    (folder / "data.json").write_text("{}")

    done = align_folder(people, tmp_path / "out")
    rows = {row.photograph.partition("/")[2]: row for row in done.outcomes}
    status = {name: str(row.status) for name, row in rows.items() if row.status != "aligned"}
    assert status == {
        "tiny.jpg": "tiny face",
        "two.jpg": "several faces",
        "grey.jpg": "no face",
        "dot.jpg": "no face",
        "text.jpg": "not an image",
        "empty.png": "not an image",
        "phone.HEIC": "not an image",
        "cut.jpg": "not readable",
        "huge.png": "not readable",
    }
    assert rows["two.jpg"].faces == 2 and rows["two.jpg"].crop == "person 1/two.jpg"
    assert not rows["tiny.jpg"].crop and rows["tiny.jpg"].box is not None
    assert "60000×60000 pixels exceed" in rows["huge.png"].note
    assert not (tmp_path / "out" / "person 1" / "tiny.jpg").exists()
    listed = (tmp_path / "out" / "failures.txt").read_text().splitlines()
    assert {line.split("\t")[1] for line in listed} == {f"person 1/{name}" for name in status}
    assert "no face\tperson 1/grey.jpg\tgive a photograph with a larger" in "\n".join(listed)

    lower = align_folder(people, tmp_path / "low", min_face=10)
    assert {row.photograph: row for row in lower.outcomes}["person 1/tiny.jpg"].crop


def test_crops_never_share_a_name():
    photographs = ["P/a.jpeg", "P/a.jpg", "P/A.JPG", "P/a.png", "P/a.png.jpg", "Q/a.jpg"]
    crops = name_crops(photographs, {}, ".jpg")
    assert crops[:2] == ["P/a.jpg", "P/a.jpg.jpg"] and crops[-1] == "Q/a.jpg"
    assert len({crop.lower() for crop in crops}) == len(crops)
    known = {"P/a.png": Outcome("P/a.png", Status.ALIGNED, "P/a.jpg")}
    assert name_crops(["P/a.jpg", "P/a.png"], known, ".jpg") == ["P/a.jpg.jpg", "P/a.jpg"]


def test_folders_without_photographs(tmp_path, people):
    with pytest.raises(FileNotFoundError, match="gone: no such folder"):
        find_photographs(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no sub-folder holds photographs .* make one sub-f"):
        find_photographs(tmp_path / "empty")
    with pytest.raises(ValueError, match="it holds 3 itself; move them"):
        find_photographs(people / "person 1")


def test_folders_that_are_not_for_crops(people, tmp_path):
    with pytest.raises(ValueError, match="would be taken for photographs"):
        align_folder(people, people / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match=r"not empty and holds no alignment\.csv"):
        align_folder(people, tmp_path / "mine", overwrite=True)
    with pytest.raises(NotADirectoryError):
        align_folder(people, tmp_path / "mine" / "letter.txt" / "out")
    with pytest.raises(ValueError, match="format 'gif' is unknown; use one of jpg, png"):
        align_folder(people, tmp_path / "out", image_format="gif")
    assert contents(tmp_path / "mine") == {"letter.txt": b"dear"}


def test_no_crop_at_all_is_an_error_that_leaves_the_list(tmp_path):
    (tmp_path / "in" / "P").mkdir(parents=True)
    (tmp_path / "in" / "P" / "a.jpg").write_text("hello")
    with pytest.raises(ValueError, match=r"none of the 1 photographs .*\(1 not an image\)"):
        align_folder(tmp_path / "in", tmp_path / "out")
    assert "not an image\tP/a.jpg" in (tmp_path / "out" / "failures.txt").read_text()
    assert not (tmp_path / "out" / "P").exists()
