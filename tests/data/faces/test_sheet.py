from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from arcface_plus.data.faces import sheet
from arcface_plus.data.faces.outcomes import Outcome, Status, numbers_of
from arcface_plus.data.faces.sheet import write_sheet
from arcface_plus.data.images import decode_image, encode_jpeg


class Page(HTMLParser):
    """The text, headings and images of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images, self.heads, self.text, self._tag = [], [], "", ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self._tag = tag
        values = dict(attributes)
        assert not {"onclick", "onerror"} & values.keys() and tag != "script"
        if tag == "img":
            data = base64.b64decode(values["src"].partition("base64,")[2])
            self.images.append(decode_image(data, where="page"))

    def handle_data(self, data):
        self.text += data
        if self._tag in ("h2", "h3") and data.strip():
            self.heads.append(data)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Photographs of 300 × 200 pixels and crops of 112 × 112 of two people."""
    for folder, shape in (("in", (200, 300, 3)), ("out", (112, 112, 3))):
        for person in ("<b>Ann", "Ben"):
            (tmp_path / folder / person).mkdir(parents=True)
            for number in range(30):
                path = tmp_path / folder / person / f"{number}.jpg"
                path.write_bytes(encode_jpeg(np.full(shape, 8 * number, dtype=np.uint8)))
    return tmp_path / "in", tmp_path / "out"


def aligned(name: str, face, status: Status = Status.ALIGNED) -> Outcome:
    return Outcome(name, status, name, 9, 2, numbers_of(face))


def test_failures_on_top_then_crops_by_person(folders, tmp_path, new_face):
    face = new_face(30, 50, 60)
    rows = [
        aligned("Ben/1.jpg", face, Status.SEVERAL),
        aligned("<b>Ann/0.jpg", face),
        Outcome("Ben/2.jpg", Status.NONE, note="too <dark>"),
        Outcome("Ben/gone.jpg", Status.UNREADABLE, note="cut off"),
    ]
    write_sheet(tmp_path / "page.html", rows, *folders)
    page = Page(tmp_path / "page.html")
    assert page.heads == [
        *("No face: 1", "Not readable: 1", "Several faces: 1"),
        *("Crops: 2 of 2 people", "<b>Ann", "Ben"),
    ]
    assert "too <dark>" in page.text and "cut off" in page.text and "Ben/gone.jpg" in page.text
    assert [image.shape for image in page.images] == [(107, 160, 3)] * 2 + [(72, 72, 3)] * 2
    framed = page.images[1]  # the box is at 30 · 160 / 300 = 16
    left = framed[50, 14:19].astype(int)
    assert (
        (left[:, 1] - left[:, 0]).max() > 80 > abs(int(framed[50, 30, 1]) - int(framed[50, 30, 0]))
    )


def test_a_page_is_bounded_and_says_so(folders, tmp_path, new_face, monkeypatch):
    monkeypatch.setattr(sheet, "CROPS", 10)
    monkeypatch.setattr(sheet, "PHOTOGRAPHS", 4)
    people = ("<b>Ann", "Ben")
    rows = [aligned(f"{p}/{n}.jpg", new_face(1, 2, 50)) for p in people for n in range(20)]
    rows += [Outcome(f"Ben/{n}.jpg", Status.NONE) for n in range(20, 30)]
    write_sheet(tmp_path / "page.html", rows, *folders)
    page = Page(tmp_path / "page.html")
    assert len(page.images) == 4 + 10
    assert "Crops: 40 of 2 people" in page.heads and "10 of them are shown" in page.text
    assert "No face: 10" in page.heads and "4 of them are shown" in page.text
    assert page.heads[-2:] == list(people)


def test_a_page_loads_nothing(folders, tmp_path, new_face):
    write_sheet(tmp_path / "page.html", [aligned("Ben/1.jpg", new_face(1, 2, 50))], *folders)
    text = (tmp_path / "page.html").read_text()
    assert "default-src 'none'" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
